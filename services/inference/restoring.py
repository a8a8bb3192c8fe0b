"""One span on a group of ranks: packets to the process that decodes, segments and progress to the caller, who is to blame."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from services.common.channel import Message
from services.common.errors import DeadlinePassed, InternalError
from services.common.logs import log_ids
from services.common.media import Packet, SpanTask
from services.common.metrics import InferenceMetrics
from services.common.pixels import PIXEL_FORMATS
from services.inference.gpu.memory import Setting
from services.inference.messages import (
    RestoreOrder,
    SegmentReady,
    SpanEvent,
    SpanProgress,
    SpanResult,
    StageTime,
    VideoDone,
    stage_of,
)
from services.inference.orders import WAITING, FramesEnded, Order
from services.inference.stage_spans import StageSpans
from services.inference.video.process import FramesLost, VideoProcess

Emit = Callable[[SpanEvent], Awaitable[None]]
"""Takes what the caller shall hear; waits while the caller is busy."""

_LAST_STAGE = "encode"


def rank_order(task: SpanTask, number: int, path: Path, setting: Setting) -> RestoreOrder:
    """What the ranks have to know of a span."""
    plan, encoded = task.plan, PIXEL_FORMATS[task.plan.output_pixel_format]
    return RestoreOrder(
        number=number, path=str(path), width=plan.width, height=plan.height, seed=plan.seed, first_frame=task.first_index,
        cuts=task.cuts, colour=plan.colour, window_latents=plan.window_latents, overlap_latents=plan.overlap_latents,
        noise=plan.noise, bit_depth=encoded.bits, alpha=encoded.alpha,
        input_noise=plan.input_noise, latent_noise=plan.latent_noise, steps=plan.steps, preview=task.preview, ids=log_ids(),
        **asdict(setting),
    )  # fmt: skip


class SpanWork:
    """A span that a group of ranks and a process that decodes and encodes have begun."""

    def __init__(self, task: SpanTask, *, video: VideoProcess, order: Order, emit: Emit, metrics: InferenceMetrics) -> None:
        self._task = task
        self._video = video
        self._order = order
        self._emit = emit
        self._metrics = metrics
        self._frames: Counter[str] = Counter()
        self._stages = StageSpans()
        self._patience = asyncio.timeout(None)

    async def run(self, packets: AsyncIterable[Packet]) -> SpanResult:
        """See it through.

        Raises:
            DeadlinePassed: nothing moved for the task's stall timeout.
            ServiceError: what went wrong, as whoever it happened to says it.
        """
        started, patience_s = time.monotonic(), self._task.stall_timeout_s
        try:
            async with asyncio.timeout(patience_s) as self._patience, asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed(packets))
                video, rank = group.create_task(self._follow_video()), group.create_task(self._follow_ranks())
                said, restored = await video, await rank
                feeding.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except TimeoutError:
            raise DeadlinePassed(f"Nothing moved for {patience_s:g} s in the middle of a span; it was given up.") from None
        finally:
            self._stages.record()
        if said is None or restored is None:
            raise InternalError("ranks and decoder each say that the other one is gone")
        return self._result(said, restored, time.monotonic() - started)

    async def _feed(self, packets: AsyncIterable[Packet]) -> None:
        async for packet in packets:
            self._metrics.packet_bytes.inc(len(packet.data))
            self._touch()
            if not await self._video.put(packet):
                return
        await self._video.end()

    async def _follow_video(self) -> VideoDone | None:
        """Its last words; None where it ended because the rank did."""
        try:
            async for event in self._video.events():
                self._touch()
                if isinstance(event, VideoDone):
                    return event
                await self._pass_on(event)
                self._touch()
        except FramesLost:
            pass
        return None

    async def _follow_ranks(self) -> Message | None:
        """Its last words; None where it ended because the frames did."""
        try:
            async for message in self._order.messages():
                self._touch()
                if message.kind == "done":
                    return message
                if message.kind == WAITING:
                    await self._emit(SpanProgress(stage=WAITING, frames=0, seconds=0.0))
                else:
                    await self._pass_on(stage_of(message.fields))
        except FramesEnded:
            pass
        return None

    async def _pass_on(self, event: StageTime | SegmentReady) -> None:
        if isinstance(event, SegmentReady):
            self._metrics.segment_bytes.inc(len(event.data))
            await self._emit(event)
            return
        self._stages.note(event)
        before = self._kept(event.stage)
        self._frames[event.stage] += event.frames
        after = self._kept(event.stage)
        self._metrics.stage_duration.labels(event.stage).observe(event.seconds)
        if event.stage == _LAST_STAGE:
            self._metrics.frames.inc(after - before)
            self._metrics.pixels.inc((after - before) * self._pixels)
        await self._emit(SpanProgress(stage=event.stage, frames=after, seconds=event.seconds))

    def _touch(self) -> None:
        # An expired one is on its way to end all this.
        if not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + self._task.stall_timeout_s)

    def _kept(self, stage: str) -> int:
        """Frames of the span that left a stage, context not counted; stages that pad count more than there are."""
        kept = len(self._task.frame_pts) - self._task.context_frames
        return min(max(0, self._frames[stage] - self._task.context_frames), kept)

    @property
    def _pixels(self) -> int:
        return self._task.plan.width * self._task.plan.height

    def _result(self, said: VideoDone, restored: Message, seconds: float) -> SpanResult:
        self._metrics.concealed.inc(said.concealed_frames)
        self._metrics.peak_memory.observe(restored.fields["peak_memory_bytes"])
        return SpanResult(
            frames=len(self._task.frame_pts) - self._task.context_frames,
            concealed_frames=said.concealed_frames,
            megapixels_per_second=len(self._task.frame_pts) * self._pixels / 1e6 / seconds,
            peak_memory_bytes=restored.fields["peak_memory_bytes"],
        )
