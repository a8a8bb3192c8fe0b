"""What lies in this worker's model directory, for its status."""

import asyncio
import time
from pathlib import Path

from services.common.fleet import ModelState
from services.inference.delivery.states import model_states

LOOK_EVERY_S = 10.0


class Shelf:
    """A model directory. Asking never waits for its file system, which may be a network's: the last look is told."""

    def __init__(self, directory: Path, look_every_s: float = LOOK_EVERY_S) -> None:
        self._directory = directory
        self._look_every_s = look_every_s
        self._models: tuple[ModelState, ...] = ()
        self._looked = -look_every_s
        self._looking: asyncio.Task[None] | None = None

    def models(self) -> tuple[ModelState, ...]:
        """As they were at the last look, which is renewed in the background; empty before the first."""
        is_looking = self._looking is not None and not self._looking.done()
        if not is_looking and time.monotonic() - self._looked >= self._look_every_s:
            self._looking = asyncio.create_task(self._look())
        return self._models

    async def _look(self) -> None:
        self._models = await asyncio.to_thread(model_states, self._directory)
        self._looked = time.monotonic()
