"""How spans are made to fit: which setting each gets, and what is learnt where memory ran out all the same."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from services.common.errors import GpuOutOfMemory
from services.common.fleet import WorkerModel
from services.common.media import SpanTask
from services.common.metrics import InferenceMetrics
from services.common.pixels import PIXEL_FORMATS
from services.inference.gpu.memory import Machine, Setting, Workload, choose, largest_pixels, line, settings_of
from services.inference.gpu.model.spec import SPECS

_log = logging.getLogger(__name__)
# For the rank to be free again.
_RETRY_AFTER_S = 0.2
_MOST_REMEMBERED = 256


class Fitting:
    """Of one model on devices of one kind."""

    def __init__(self, model: str, metrics: InferenceMetrics) -> None:
        self.machine = Machine(dtype="float32", passes="stacked")
        """What computes; the ranks say it when they are ready."""
        self._spec = SPECS[model]
        self._metrics = metrics
        self._tight: dict[Workload, None] = {}
        """What has run out of memory, by prediction or not; it gets the leanest setting from then on."""

    def choose(self, task: SpanTask, available_bytes: int) -> Setting:
        """The fastest setting in which a span fits.

        Raises:
            GpuOutOfMemory: there is none; nothing was begun.
        """
        workload = _workload(task)
        settings = settings_of(self._spec, self.machine)
        left = settings[-1:] if workload in self._tight else settings
        try:
            return choose(self._spec, self.machine, workload, available_bytes, settings=left)
        except GpuOutOfMemory:
            self._metrics.out_of_memory.labels("refused").inc()
            raise

    @contextmanager
    def learning(self, task: SpanTask, setting: Setting) -> Iterator[None]:
        """Remember it where a span runs out of memory inside the block.

        Raises:
            GpuOutOfMemory: it did. With a time to retry after where a leaner setting is left: sent again, the span gets that.
        """
        settings = settings_of(self._spec, self.machine)
        if setting != settings[0]:
            self._metrics.out_of_memory_avoided.inc()
        try:
            yield
        except GpuOutOfMemory as error:
            left = setting != settings[-1]
            self._metrics.out_of_memory.labels("leaner" if left else "failed").inc()
            _log.warning("out of memory", extra={"setting": str(setting), "leaner_left": left, "detail": error.message})
            if not left:
                raise
            if len(self._tight) >= _MOST_REMEMBERED:
                self._tight.clear()
            self._tight[_workload(task)] = None
            raise GpuOutOfMemory(
                f"{error.message} Sent again, the span is restored with less memory.", retry_after_s=_RETRY_AFTER_S
            ) from error

    def announce(self, model: WorkerModel, available_bytes: int) -> WorkerModel:
        """A model with what callers need to know of its memory."""
        base, per_pixel = line(self._spec, self.machine)
        return replace(
            model,
            max_output_pixels=largest_pixels(self._spec, self.machine, available_bytes),
            memory_base_bytes=base,
            memory_bytes_per_pixel=per_pixel,
        )


def _workload(task: SpanTask) -> Workload:
    plan = task.plan
    return Workload(
        width=plan.width, height=plan.height, source_pixels=task.codec.width * task.codec.height,
        window_latents=plan.window_latents, bit_depth=PIXEL_FORMATS[plan.output_pixel_format].bits,
        tile_size=plan.tile_size, tile_overlap=plan.tile_overlap,
    )  # fmt: skip
