"""Protobuf messages between gateway and inference, to our types and back. Large bytes are cut into pieces here."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from fractions import Fraction

from google.protobuf import duration_pb2

from services.common.errors import ChunkOutOfOrder
from services.common.fleet import ModelState, WorkerModel, WorkerStatus
from services.common.media import CodecParameters, Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.plan import RestorePlan, Segment
from services.common.rpc.server import PIECE_BYTES

# What a packet part costs on the wire besides its data; keeps a chunk of tiny packets under the message limit.
_PART_OVERHEAD_BYTES = 64


def encode_task(task: SpanTask) -> pb.SpanHeader:
    """The first message of a span."""
    return pb.SpanHeader(
        job_id=task.job_id,
        span=task.span,
        request_id=task.request_id,
        codec=_encode_codec(task.codec),
        time_base=_rational(task.time_base),
        first_index=task.first_index,
        frame_pts=task.frame_pts,
        last_duration=task.last_duration,
        by_order=task.by_order,
        plan=_encode_plan(task.plan),
        segments=[pb.SegmentCut(first=s.first, end=s.end, stored=s.first in task.stored) for s in task.segments],
        stall_timeout=duration_pb2.Duration(seconds=int(task.stall_timeout_s), nanos=int(task.stall_timeout_s % 1 * 1e9)),
        priority=1 if task.preview else 0,
        context_frames=task.context_frames,
        cuts=task.cuts,
    )


def decode_task(header: pb.SpanHeader) -> SpanTask:
    """Read :func:`encode_task` back."""
    return SpanTask(
        job_id=header.job_id,
        span=header.span,
        request_id=header.request_id,
        codec=_decode_codec(header.codec),
        time_base=_fraction(header.time_base),
        first_index=header.first_index,
        frame_pts=tuple(header.frame_pts),
        last_duration=header.last_duration,
        by_order=header.by_order,
        context_frames=header.context_frames,
        segments=tuple(Segment(first=s.first, end=s.end) for s in header.segments),
        stored=frozenset(s.first for s in header.segments if s.stored),
        plan=_decode_plan(header.plan),
        stall_timeout_s=header.stall_timeout.seconds + header.stall_timeout.nanos / 1e9,
        preview=header.priority > 0,
        cuts=tuple(header.cuts),
    )


async def encode_packets(packets: AsyncIterable[Packet]) -> AsyncIterator[pb.Chunk]:
    """Consecutive packets as chunks of at most a piece; a larger packet travels in parts over several chunks."""
    chunk, room, number = pb.Chunk(number=0), PIECE_BYTES, 0
    async for packet in packets:
        for part in _parts(packet):
            cost = len(part.data) + _PART_OVERHEAD_BYTES
            if chunk.parts and cost > room:
                yield chunk
                number += 1
                chunk, room = pb.Chunk(number=number), PIECE_BYTES
            chunk.parts.append(part)
            room -= cost
    if chunk.parts:
        yield chunk


class PacketAssembler:
    """Chunks back to packets."""

    def __init__(self) -> None:
        self._number = 0
        self._info: pb.PacketInfo | None = None
        self._data = bytearray()

    def feed(self, chunk: pb.Chunk) -> Iterator[Packet]:
        """The packets that ``chunk`` completes.

        Raises:
            ChunkOutOfOrder: a chunk is missing or repeated, or parts don't fit together.
        """
        if chunk.number != self._number:
            raise ChunkOutOfOrder(f"Chunk {self._number} was expected, chunk {chunk.number} came.")
        self._number += 1
        for part in chunk.parts:
            packet = self._take(part)
            if packet is not None:
                yield packet

    def finish(self) -> None:
        """Say that no chunk follows.

        Raises:
            ChunkOutOfOrder: a packet is incomplete.
        """
        if self._info is not None:
            raise ChunkOutOfOrder("The stream ended in the middle of a packet.")

    def _take(self, part: pb.PacketPart) -> Packet | None:
        if part.HasField("info") == (self._info is not None):
            raise ChunkOutOfOrder("A packet's parts came in the wrong order.")
        if part.HasField("info"):
            self._info = part.info
        self._data += part.data
        if not part.last or self._info is None:
            return None
        info, data = self._info, bytes(self._data)
        self._info, self._data = None, bytearray()
        if len(data) != info.size_bytes:
            raise ChunkOutOfOrder(f"A packet of {info.size_bytes} bytes came with {len(data)}.")
        return Packet(
            pts=info.pts if info.HasField("pts") else None,
            dts=info.dts if info.HasField("dts") else None,
            duration=info.duration,
            keyframe=info.keyframe,
            data=data,
            side_data=dict(info.side_data),
        )


def encode_segment(segment: Segment, data: bytes) -> Iterator[pb.SegmentPart]:
    """A segment in pieces; the last one carries the hash."""
    pieces = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)] or [b""]
    for i, piece in enumerate(pieces):
        last = i == len(pieces) - 1
        sha256 = hashlib.sha256(data).hexdigest() if last else ""
        yield pb.SegmentPart(first=segment.first, end=segment.end, data=piece, last=last, sha256=sha256)


class SegmentAssembler:
    """Pieces back to segments."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, part: pb.SegmentPart) -> tuple[Segment, bytes] | None:
        """The segment that ``part`` completes, if it does.

        Raises:
            ChunkOutOfOrder: the hash doesn't match.
        """
        self._data += part.data
        if not part.last:
            return None
        data, self._data = bytes(self._data), bytearray()
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise ChunkOutOfOrder(f"Segment {part.first} arrived with another hash than it was sent with.")
        return Segment(first=part.first, end=part.end), data


def encode_status(status: WorkerStatus) -> pb.StatusResponse:
    """A worker's answer to Status."""
    return pb.StatusResponse(
        worker_id=status.worker_id,
        pool=status.pool,
        state=status.state,
        models=[_encode_model(m) for m in status.models],
        fingerprint=status.fingerprint,
        facts=status.facts,
        ranks=status.ranks,
        slots=status.slots,
        free_slots=status.free_slots,
        megapixels_per_second=status.megapixels_per_second,
        memory_bytes=status.memory_bytes,
        detail=status.detail,
        version=status.version,
        installed=[pb.ModelState(name=m.name, title=m.title, state=m.state, size_bytes=m.size_bytes) for m in status.installed],
        checks=status.checks,
        encoders=status.encoders,
    )


def decode_status(message: pb.StatusResponse) -> WorkerStatus:
    """Read :func:`encode_status` back."""
    return WorkerStatus(
        worker_id=message.worker_id,
        pool=message.pool,
        state=message.state,
        models=tuple(_decode_model(m) for m in message.models),
        fingerprint=message.fingerprint,
        facts=dict(message.facts),
        ranks=message.ranks,
        slots=message.slots,
        free_slots=message.free_slots,
        megapixels_per_second=message.megapixels_per_second,
        memory_bytes=message.memory_bytes,
        detail=message.detail,
        version=message.version,
        installed=tuple(
            ModelState(name=m.name, title=m.title, state=m.state, size_bytes=m.size_bytes) for m in message.installed
        ),
        checks=dict(message.checks),
        encoders=tuple(message.encoders),
    )


def _parts(packet: Packet) -> Iterator[pb.PacketPart]:
    size = PIECE_BYTES - _PART_OVERHEAD_BYTES
    for start in range(0, max(len(packet.data), 1), size):
        part = pb.PacketPart(data=packet.data[start : start + size], last=start + size >= len(packet.data))
        if start == 0:
            part.info.CopyFrom(_packet_info(packet))
        yield part


def _packet_info(packet: Packet) -> pb.PacketInfo:
    return pb.PacketInfo(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration,
        keyframe=packet.keyframe,
        size_bytes=len(packet.data),
        side_data=packet.side_data,
    )


def _encode_plan(plan: RestorePlan) -> pb.RestorePlan:
    return pb.RestorePlan(
        model=plan.model,
        model_hash=plan.model_hash,
        fingerprint=plan.fingerprint,
        dtype=plan.dtype,
        weight_format=plan.weight_format,
        width=plan.width,
        height=plan.height,
        seed=plan.seed,
        noise=plan.noise,
        colour=plan.colour,
        window_latents=plan.window_latents,
        overlap_latents=plan.overlap_latents,
        tile_size=plan.tile_size,
        tile_overlap=plan.tile_overlap,
        encoder=plan.encoder,
        encoder_options=dict(plan.encoder_options),
        output_pixel_format=plan.output_pixel_format,
        input_noise=plan.input_noise,
        latent_noise=plan.latent_noise,
        steps=plan.steps,
    )


def _decode_plan(plan: pb.RestorePlan) -> RestorePlan:
    return RestorePlan(
        model=plan.model,
        model_hash=plan.model_hash,
        fingerprint=plan.fingerprint,
        dtype=plan.dtype,
        weight_format=plan.weight_format,
        width=plan.width,
        height=plan.height,
        seed=plan.seed,
        noise=plan.noise,
        colour=plan.colour,
        window_latents=plan.window_latents,
        overlap_latents=plan.overlap_latents,
        tile_size=plan.tile_size,
        tile_overlap=plan.tile_overlap,
        encoder=plan.encoder,
        encoder_options=tuple(sorted(plan.encoder_options.items())),
        output_pixel_format=plan.output_pixel_format,
        input_noise=plan.input_noise,
        latent_noise=plan.latent_noise,
        steps=plan.steps or 1,
    )


def _encode_codec(codec: CodecParameters) -> pb.CodecParameters:
    return pb.CodecParameters(
        codec=codec.codec,
        extradata=codec.extradata,
        width=codec.width,
        height=codec.height,
        pixel_format=codec.pixel_format,
        sample_aspect_ratio=_rational(codec.sample_aspect_ratio),
        colour_primaries=codec.colour_primaries,
        colour_transfer=codec.colour_transfer,
        colour_matrix=codec.colour_matrix,
        colour_range=codec.colour_range,
        side_data=codec.side_data,
        frame_rate=_rational(codec.frame_rate),
        rotation=codec.rotation,
    )


def _decode_codec(codec: pb.CodecParameters) -> CodecParameters:
    return CodecParameters(
        codec=codec.codec,
        extradata=codec.extradata,
        width=codec.width,
        height=codec.height,
        pixel_format=codec.pixel_format,
        sample_aspect_ratio=_fraction(codec.sample_aspect_ratio),
        colour_primaries=codec.colour_primaries,
        colour_transfer=codec.colour_transfer,
        colour_matrix=codec.colour_matrix,
        colour_range=codec.colour_range,
        side_data=dict(codec.side_data),
        frame_rate=_fraction(codec.frame_rate),
        rotation=codec.rotation,
    )


def _encode_model(model: WorkerModel) -> pb.WorkerModel:
    return pb.WorkerModel(
        name=model.name,
        title=model.title,
        hash=model.hash,
        dtype=model.dtype,
        weight_format=model.weight_format,
        size_multiple=model.size_multiple,
        temporal_factor=model.temporal_factor,
        window_latents=model.window_latents,
        overlap_latents=model.overlap_latents,
        parameters=model.parameters,
        colours=model.colours,
        context_frames=model.context_frames,
        detail=model.detail,
        max_steps=model.max_steps,
        max_output_pixels=model.max_output_pixels,
        memory_base_bytes=model.memory_base_bytes,
        memory_bytes_per_pixel=model.memory_bytes_per_pixel,
    )


def _decode_model(model: pb.WorkerModel) -> WorkerModel:
    return WorkerModel(
        name=model.name,
        title=model.title,
        hash=model.hash,
        dtype=model.dtype,
        weight_format=model.weight_format,
        size_multiple=model.size_multiple,
        temporal_factor=model.temporal_factor,
        window_latents=model.window_latents,
        overlap_latents=model.overlap_latents,
        parameters=model.parameters,
        colours=tuple(model.colours),
        context_frames=model.context_frames,
        detail=model.detail,
        max_steps=model.max_steps or 1,
        max_output_pixels=model.max_output_pixels,
        memory_base_bytes=model.memory_base_bytes,
        memory_bytes_per_pixel=model.memory_bytes_per_pixel,
    )


def _rational(value: Fraction) -> pb.Rational:
    return pb.Rational(num=value.numerator, den=value.denominator)


def _fraction(value: pb.Rational) -> Fraction:
    return Fraction(value.num, value.den or 1)
