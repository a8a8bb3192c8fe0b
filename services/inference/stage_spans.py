"""What the stages of a span took, as one span of its trace for each stage."""

import time
from dataclasses import dataclass

from services.common import tracing
from services.inference.messages import StageTime


@dataclass(slots=True)
class _Stage:
    start_ns: int
    end_ns: int = 0
    seconds: float = 0.0
    frames: int = 0


class StageSpans:
    """Adds up what stages report, slice by slice: a span of a trace for each slice would be thousands."""

    def __init__(self) -> None:
        self._stages: dict[str, _Stage] = {}

    def note(self, event: StageTime) -> None:
        """Frames went through a stage, and left it now."""
        now = time.time_ns()
        stage = self._stages.setdefault(event.stage, _Stage(start_ns=now - round(event.seconds * 1e9)))
        stage.end_ns = now
        stage.seconds += event.seconds
        stage.frames += event.frames

    def record(self) -> None:
        """Tell all of them, below the current span."""
        for name, stage in self._stages.items():
            tracing.note_span(name, stage.start_ns, stage.end_ns, seconds=round(stage.seconds, 6), frames=stage.frames)
