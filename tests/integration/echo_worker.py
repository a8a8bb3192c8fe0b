"""A small real Worker: decodes packets, scales frames with swscale and encodes segments. No model, so tests are quick.

``python -m tests.integration.echo_worker`` with ``SEEDVR2_ECHO_…`` in the environment; see :class:`EchoSettings`.
"""

import asyncio
import contextlib
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
from av.video.frame import VideoFrame

from services.common.errors import FingerprintChanged, InvalidVideo, all_errors
from services.common.fleet import WorkerModel, WorkerStatus
from services.common.media import Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.plan import Segment
from services.common.rpc.codec import PacketAssembler, decode_task, encode_segment, encode_status
from services.common.rpc.server import Server, wait_for_signal
from services.common.settings import read_settings, setting
from services.inference.video.x264 import repeatable_options

_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoSettings:
    """How the worker behaves."""

    address: str = setting("127.0.0.1:0", "host:port")
    pool: str = setting("echo", "its pool")
    models: tuple[str, ...] = setting(("echo",), "names of the models that it claims to serve")
    fingerprint: str = setting("echo-1", "its fingerprint")
    context_frames: int = setting(0, "frames of context that it asks for")
    speed: float = setting(0.0, "megapixels a second that it claims")
    segment_s: float = setting(0.0, "seconds that each segment takes")
    hold_file: str = setting("", "while this file exists, only the first segment of each span is sent")
    fail_with: str = setting("", "error class that spans end with")
    fail_times: int = setting(0, "how many of them")
    deadly_frame: int = setting(-1, "source frame at whose span it kills itself; -1: none")
    log_file: str = setting("", "gets a line for each span")
    ready_file: str = setting("", "gets the real address")


class EchoWorker(worker_pb2_grpc.WorkerServicer):
    """Takes one span at a time."""

    def __init__(self, settings: EchoSettings) -> None:
        self._settings = settings
        self._busy = asyncio.Lock()
        self._failures = settings.fail_times

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        busy = self._busy.locked()
        models = tuple(
            WorkerModel(
                name=name, title=name.title(), hash="0" * 64, dtype="float32", weight_format="none", size_multiple=2,
                temporal_factor=1, window_latents=1, overlap_latents=0, parameters=0, colours=("wavelet", "none"),
                context_frames=self._settings.context_frames,
            )
            for name in self._settings.models
        )  # fmt: skip
        status = WorkerStatus(
            worker_id=str(os.getpid()), pool=self._settings.pool, state="busy" if busy else "ready", models=models,
            fingerprint=self._settings.fingerprint, facts={"device": "swscale"}, free_slots=int(not busy),
            megapixels_per_second=self._settings.speed,
        )  # fmt: skip
        return encode_status(status)

    async def Restore(self, requests: AsyncIterator[pb.RestoreRequest], context: Any) -> AsyncIterator[pb.RestoreResponse]:
        messages = aiter(requests)
        task = decode_task((await anext(messages)).header)
        async with self._busy:
            self._log(task)
            self._refuse(task)
            frames = await asyncio.to_thread(matched, task, [p async for p in _packets(messages)])
            yield _progress("decode", len(frames), 0.01)
            sent = 0
            for segment in task.segments:
                if segment.first in task.stored:
                    continue
                while sent and self._settings.hold_file and Path(self._settings.hold_file).exists():
                    await asyncio.sleep(_POLL_S)
                await asyncio.sleep(self._settings.segment_s)
                for part in encode_segment(segment, await asyncio.to_thread(encoded, task, segment, frames)):
                    yield pb.RestoreResponse(segment=part)
                assert (await anext(messages)).stored.first == segment.first
                sent += 1
                yield _progress("dit", segment.end - task.segments[0].first, 0.25)
                yield _progress("encode", segment.end - task.segments[0].first, 0.01)
            yield pb.RestoreResponse(done=pb.SpanDone(frames=len(frames) - task.context_frames))

    def _refuse(self, task: SpanTask) -> None:
        if task.first_index <= self._settings.deadly_frame < task.first_index + len(task.frame_pts):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.plan.fingerprint != self._settings.fingerprint:
            raise FingerprintChanged("planned for another worker")
        if self._failures > 0:
            self._failures -= 1
            raise all_errors()[self._settings.fail_with]("The echo worker was told to fail.")

    def _log(self, task: SpanTask) -> None:
        if self._settings.log_file:
            line = {
                "pid": os.getpid(), "job": task.job_id, "span": task.span, "stored": sorted(task.stored),
                "frames": [task.first_index, task.first_index + len(task.frame_pts)], "context": task.context_frames,
                "cuts": task.cuts,
            }  # fmt: skip
            with open(self._settings.log_file, "a") as file:
                file.write(json.dumps(line) + "\n")


async def _packets(messages: AsyncIterator[pb.RestoreRequest]) -> AsyncIterator[Packet]:
    assembler = PacketAssembler()
    async for message in messages:
        if message.WhichOneof("message") == "end":
            assembler.finish()
            return
        for packet in assembler.feed(message.chunk):
            yield packet


def _progress(stage: str, frames: int, seconds: float) -> pb.RestoreResponse:
    return pb.RestoreResponse(progress=pb.StageProgress(stage=stage, frames=frames, seconds=seconds))


def matched(task: SpanTask, packets: list[Packet]) -> list[VideoFrame]:
    """A frame for each time stamp of the task; where one can't be decoded, a neighbour."""
    decoded = list(_decoded(task, packets))
    if task.by_order:
        found = dict(zip(task.frame_pts, decoded, strict=False))
    else:
        found = {frame.pts: frame for frame in decoded if frame.pts is not None}
    if not found.keys() & set(task.frame_pts):
        raise InvalidVideo("no frame of the span can be decoded")
    last = next(found[pts] for pts in task.frame_pts if pts in found)
    frames = []
    for pts in task.frame_pts:
        last = found.get(pts, last)
        frames.append(last)
    return frames


def _decoded(task: SpanTask, packets: list[Packet]) -> Iterator[VideoFrame]:
    context = av.CodecContext.create(task.codec.codec, "r")
    context.thread_count = 1
    context.extradata = task.codec.extradata or None
    for packet in [*packets, None]:
        coded = None
        if packet is not None:
            coded = av.Packet(packet.data)
            coded.pts, coded.dts, coded.time_base = packet.pts, packet.dts, task.time_base
        with contextlib.suppress(av.error.InvalidDataError):
            yield from context.decode(coded)


def encoded(task: SpanTask, segment: Segment, frames: list[VideoFrame]) -> bytes:
    """A segment as a fragmented MP4."""
    target = io.BytesIO()
    # The segment's clock is the source's.
    movflags = "frag_keyframe+empty_moov+delay_moov+default_base_moof+frag_discont"
    options = {"movflags": movflags, "video_track_timescale": str(task.time_base.denominator)}
    with av.open(target, "w", format="mp4", options=options) as output:
        repeatable = repeatable_options() if task.plan.encoder == "libx264" else {}
        encoding = {**dict(task.plan.encoder_options), **repeatable, "threads": "1"}
        stream = output.add_stream(task.plan.encoder, rate=25, options=encoding)
        stream.width, stream.height, stream.pix_fmt = task.plan.width, task.plan.height, task.plan.output_pixel_format
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = stream.time_base = task.time_base
        for i in range(segment.first - task.first_index, segment.end - task.first_index):
            frame = frames[i].reformat(task.plan.width, task.plan.height, task.plan.output_pixel_format, dst_color_range=1)
            frame.pts, frame.time_base = task.frame_pts[i], task.time_base
            frame.pict_type = 0
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()


async def serve(settings: EchoSettings) -> None:
    """Run until a signal comes."""
    server = Server(settings.address)
    server.add("seedvr2.v1.Worker", lambda s: worker_pb2_grpc.add_WorkerServicer_to_server(EchoWorker(settings), s))
    port = await server.start()
    await server.set_serving(True)
    draft = Path(settings.ready_file + ".draft")
    draft.write_text(json.dumps({"address": f"127.0.0.1:{port}", "metrics_address": "", "pid": os.getpid()}))
    draft.replace(settings.ready_file)
    await wait_for_signal((signal.SIGTERM, signal.SIGINT))
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(read_settings(EchoSettings, "SEEDVR2_ECHO", os.environ)))
