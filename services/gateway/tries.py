"""How often a span is tried, and how long it rests in between. Pure; chance is an argument."""

from dataclasses import dataclass

from services.common.errors import (
    Draining,
    GpuOutOfMemory,
    ModelNotReady,
    QueueFull,
    ServiceError,
    SpanFatal,
    WorkerBroken,
    WorkerUnavailable,
)

MOST_LOST = 3
"""Different workers that a span may take along before it is blamed."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 10.0
LATER = (QueueFull, Draining, ModelNotReady)
"""The worker is well, it only can't take the span now."""

# Nor has a span failed that never reached its worker.
_NOT_ITS_FAULT = (*LATER, WorkerUnavailable)


@dataclass(slots=True)
class Tries:
    """Of one span."""

    limit: int
    """Times that it may fail without any new segment."""

    what: str = "A part of the video"
    """The span, as errors name it."""

    lost: tuple[str, ...] = ()
    """Workers that were lost in the middle of it since it went on last, each once."""

    failed: int = 0
    """Times that it failed since it went on last."""

    leaner: int = 0
    """Times that a worker asked for it again to restore it with less memory."""

    pause_s: float = _FIRST_PAUSE_S
    """The next rest, but for chance."""

    def next_pause(self, error: ServiceError, address: str, *, went_on: bool, chance: float) -> float:
        """Seconds to rest after a try on a worker failed; ``chance``, 0 to 1, keeps spans and gateways out of step.

        Raises:
            SpanFatal: it has taken too many workers along.
            ServiceError: ``error``, where it has failed too often.
        """
        if went_on:
            self.failed, self.lost, self.pause_s = 0, (), _FIRST_PAUSE_S
        if isinstance(error, WorkerBroken) and address not in self.lost:
            self.lost = (*self.lost, address)
        if len(self.lost) >= MOST_LOST:
            raise SpanFatal(
                f"{self.what} took {len(self.lost)} workers along ({', '.join(self.lost)}), so no more are risked; at last "
                f"it was so: {error.message}"
            ) from error
        if restores_leaner(error) and self.leaner < self.limit:
            self.leaner += 1
        elif not isinstance(error, _NOT_ITS_FAULT):
            self.failed += 1
        if self.failed >= self.limit:
            raise type(error)(f"{self.what} failed {self.failed} times, at last so: {error.message}") from error
        pause_s, self.pause_s = max(self.pause_s, error.retry_after_s or 0.0), min(2 * self.pause_s, _LONGEST_PAUSE_S)
        return pause_s * (1 + chance)


def restores_leaner(error: ServiceError) -> bool:
    """Whether a worker that ran out of memory asks for the same span again, to restore it with less."""
    return isinstance(error, GpuOutOfMemory) and error.retry_after_s is not None
