import dataclasses
from collections.abc import AsyncIterator
from fractions import Fraction

import pytest

from services.common.errors import ChunkOutOfOrder
from services.common.fleet import ModelState, WorkerModel, WorkerStatus
from services.common.media import CodecParameters, Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.plan import RestorePlan, Segment
from services.common.rpc.codec import (
    PacketAssembler,
    SegmentAssembler,
    decode_status,
    decode_task,
    encode_packets,
    encode_segment,
    encode_status,
    encode_task,
)
from services.common.rpc.server import MAX_MESSAGE_BYTES

TASK = SpanTask(
    job_id="j",
    span=2,
    request_id="r",
    codec=CodecParameters(
        codec="h264", extradata=b"\x01\x02", width=640, height=360, pixel_format="yuv420p", sample_aspect_ratio=Fraction(4, 3),
        colour_primaries=9, colour_transfer=16, colour_matrix=9, colour_range=1, frame_rate=Fraction(30000, 1001), rotation=90,
        side_data={"mastering": b"m"},
    ),
    time_base=Fraction(1, 90000),
    first_index=40,
    frame_pts=(-3003, 0, 3003),
    last_duration=3003,
    by_order=True,
    context_frames=1,
    segments=(Segment(first=41, end=42), Segment(first=42, end=43)),
    stored=frozenset({42}),
    plan=RestorePlan(
        model="nano", model_hash="h", fingerprint="f", dtype="float32", weight_format="float16", width=1280, height=720,
        seed=2**64 - 1, window_latents=8, overlap_latents=2, tile_size=512, tile_overlap=64,
        input_noise=0.25, latent_noise=0.5, steps=4,
        encoder_options=(("crf", "14"), ("preset", "fast")),
    ),
    stall_timeout_s=1.5,
    preview=True,
    cuts=(41, 42),
)  # fmt: skip


def _all_fields_set(record: object) -> bool:
    return all(getattr(record, f.name) != f.default for f in dataclasses.fields(record) if f.default is not dataclasses.MISSING)  # type: ignore[arg-type]


def test_a_task_survives_the_wire():
    assert _all_fields_set(TASK)
    assert _all_fields_set(TASK.codec)
    assert decode_task(pb.SpanHeader.FromString(encode_task(TASK).SerializeToString())) == TASK


def test_a_status_survives_the_wire():
    model = WorkerModel(
        name="nano", title="Nano", hash="h", dtype="float32", weight_format="float16", size_multiple=8, temporal_factor=1,
        window_latents=8, overlap_latents=2, parameters=5, colours=("wavelet",), context_frames=4, max_steps=2,
        max_output_pixels=5, memory_base_bytes=6, memory_bytes_per_pixel=0.5, detail="d",
    )  # fmt: skip
    status = WorkerStatus(
        worker_id="w", pool="p", state="ready", models=(model,), fingerprint="f", facts={"a": "b"}, ranks=2, slots=3,
        free_slots=2, encoders=("h264_nvenc",),
        megapixels_per_second=0.5, memory_bytes=7, checks={"rank 0 conv3d": "ok"}, detail="d", version="1",
        installed=(ModelState(name="big", title="Big", state="fetching", size_bytes=3),),
    )  # fmt: skip
    assert _all_fields_set(status)
    assert _all_fields_set(model)
    assert decode_status(pb.StatusResponse.FromString(encode_status(status).SerializeToString())) == status


def _packet(size: int, **changes: object) -> Packet:
    return dataclasses.replace(
        Packet(pts=1, dts=None, duration=2, keyframe=True, data=bytes([size % 251]) * size, side_data={"s": b"x"}), **changes
    )


async def _stream(packets: list[Packet]) -> AsyncIterator[Packet]:
    for packet in packets:
        yield packet


async def _chunks(packets: list[Packet]) -> list[pb.Chunk]:
    return [chunk async for chunk in encode_packets(_stream(packets))]


@pytest.mark.parametrize("sizes", [[], [0], [1, 2, 3], [5 << 20], [100, 3 << 20, 100], [700_000] * 5, [10] * 40_000])
async def test_packets_of_any_size_survive_the_wire_in_small_messages(sizes: list[int]):
    packets = [_packet(size) for size in sizes]
    chunks = await _chunks(packets)
    assert all(chunk.ByteSize() < MAX_MESSAGE_BYTES // 2 for chunk in chunks)
    assembler = PacketAssembler()
    assert [packet for chunk in chunks for packet in assembler.feed(chunk)] == packets
    assembler.finish()


async def test_a_missing_or_repeated_chunk_is_refused():
    chunks = await _chunks([_packet(900_000)] * 3)
    with pytest.raises(ChunkOutOfOrder, match="Chunk 0 was expected, chunk 1 came"):
        list(PacketAssembler().feed(chunks[1]))
    assembler = PacketAssembler()
    list(assembler.feed(chunks[0]))
    with pytest.raises(ChunkOutOfOrder):
        list(assembler.feed(chunks[0]))


async def test_an_incomplete_packet_is_refused():
    chunks = await _chunks([_packet(3 << 20)])
    assembler = PacketAssembler()
    assert list(assembler.feed(chunks[0])) == []
    with pytest.raises(ChunkOutOfOrder, match="middle of a packet"):
        assembler.finish()


def test_a_packet_of_another_size_than_declared_is_refused():
    chunk = pb.Chunk(number=0, parts=[pb.PacketPart(info=pb.PacketInfo(size_bytes=3), data=b"ab", last=True)])
    with pytest.raises(ChunkOutOfOrder, match="3 bytes came with 2"):
        list(PacketAssembler().feed(chunk))


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (5 << 20) + 1])
def test_a_segment_survives_the_wire(size: int):
    segment, data = Segment(first=1, end=9), bytes(size)
    assembler = SegmentAssembler()
    results = [assembler.feed(part) for part in encode_segment(segment, data)]
    assert results[-1] == (segment, data)
    assert set(results[:-1]) <= {None}


def test_a_damaged_segment_is_refused():
    (part,) = encode_segment(Segment(first=1, end=9), b"abc")
    part.data = b"abd"
    with pytest.raises(ChunkOutOfOrder, match="another hash"):
        SegmentAssembler().feed(part)
