import asyncio
from collections.abc import AsyncIterator

import pytest

from services.common.errors import ChunkOutOfOrder, InvalidVideo
from services.common.media import Packet
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.rpc.codec import encode_packets, encode_task
from services.inference.inbox import SpanInbox
from tests.unit.inference.clips import Clip, make_clip, read_clip, task_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=4))


class Stream:
    """Requests that a caller sends one by one; counts those that were read."""

    def __init__(self, *requests: pb.RestoreRequest, open_ended: bool = False) -> None:
        self._requests = list(requests)
        self._open_ended = open_ended
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[pb.RestoreRequest]:
        for request in self._requests:
            self.read += 1
            yield request
        if self._open_ended:
            await asyncio.Event().wait()


def packet(size: int) -> Packet:
    return Packet(pts=0, dts=0, duration=1, keyframe=True, data=bytes(size))


async def chunks(*packets: Packet) -> list[pb.RestoreRequest]:
    async def each() -> AsyncIterator[Packet]:
        for one in packets:
            yield one

    return [pb.RestoreRequest(chunk=chunk) async for chunk in encode_packets(each())]


def stored(first: int) -> pb.RestoreRequest:
    return pb.RestoreRequest(stored=pb.SegmentStored(first=first))


END = pb.RestoreRequest(end=pb.SpanEnd())


async def _settled() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def _collect(inbox: SpanInbox) -> list[Packet]:
    async with inbox.reading():
        return [p async for p in inbox.packets()]


async def test_the_header_and_all_packets_arrive(clip: Clip):
    task = task_for(clip)
    inbox = SpanInbox(Stream(pb.RestoreRequest(header=encode_task(task)), *await chunks(*clip.packets), END))
    assert await inbox.header() == task
    assert await _collect(inbox) == list(clip.packets)


@pytest.mark.parametrize("requests", [[], [END], [stored(0)], [pb.RestoreRequest()]])
async def test_a_stream_without_its_header_is_refused(requests: list[pb.RestoreRequest]):
    with pytest.raises(ChunkOutOfOrder, match="must begin with its header"):
        await SpanInbox(Stream(*requests)).header()


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "ended before the span did"),
        ([pb.RestoreRequest(chunk=pb.Chunk(number=7))], "Chunk 0 was expected, chunk 7 came"),
        ([pb.RestoreRequest(header=pb.SpanHeader())], "header can't stand here"),
        ([pb.RestoreRequest()], "empty message can't stand here"),
        ([pb.RestoreRequest(chunk=pb.Chunk(parts=[pb.PacketPart(info=pb.PacketInfo(), data=b"x")])), END], "middle of a packet"),
    ],
)
async def test_a_stream_that_does_not_fit_together_fails(requests: list[pb.RestoreRequest], words: str):
    with pytest.raises(ChunkOutOfOrder, match=words):
        await _collect(SpanInbox(Stream(*requests)))


async def test_packets_that_nobody_takes_stop_the_reading():
    stream = Stream(*await chunks(*[packet(MIB // 2)] * 100), END)
    inbox = SpanInbox(stream)
    async with inbox.reading():
        await _settled()
        assert stream.read < 30
        assert len([p async for p in inbox.packets()]) == 100


async def test_a_flood_of_tiny_packets_stops_the_reading_too():
    requests = [r for _ in range(30) for r in await chunks(*[packet(1)] * 1000)]
    for number, request in enumerate(requests):
        request.chunk.number = number
    stream = Stream(*requests, END)
    inbox = SpanInbox(stream)
    async with inbox.reading():
        await _settled()
        assert stream.read < 15
        assert len([p async for p in inbox.packets()]) == 30_000


async def test_a_packet_that_claims_to_be_huge_is_not_waited_for():
    part = pb.PacketPart(info=pb.PacketInfo(size_bytes=1 << 40), data=b"x")
    with pytest.raises(InvalidVideo, match="1048576 MiB"):
        await _collect(SpanInbox(Stream(pb.RestoreRequest(chunk=pb.Chunk(parts=[part])))))


async def test_a_third_segment_waits_for_an_acknowledgement():
    stream = Stream(open_ended=True)
    inbox = SpanInbox(stream)
    async with inbox.reading():
        await inbox.room_for(0)
        await inbox.room_for(4)
        third = asyncio.create_task(inbox.room_for(8))
        await _settled()
        assert not third.done()
        await inbox._acknowledge(0)
        await asyncio.wait_for(third, 5)


async def test_an_acknowledgement_behind_many_chunks_does_not_stop_everything():
    inbox = SpanInbox(Stream(*await chunks(*[packet(MIB)] * 30), stored(0), END))
    async with inbox.reading(), asyncio.timeout(5):
        for first in range(0, 40, 4):
            await inbox.room_for(first)
        assert len([p async for p in inbox.packets()]) == 30


async def test_it_is_settled_when_all_was_sent_and_acknowledged():
    requests = [*await chunks(*[packet(MIB)] * 30), END, stored(0)]
    stream = Stream(*requests, open_ended=True)
    inbox = SpanInbox(stream)
    async with inbox.reading(), asyncio.timeout(5):
        await inbox.room_for(0)
        await inbox.room_for(4)
        settling = asyncio.create_task(inbox.settled())
        await _settled()
        assert stream.read == len(requests)
        assert not settling.done()
        await inbox._acknowledge(4)
        await settling


async def test_it_is_settled_when_nothing_more_can_come():
    inbox = SpanInbox(Stream())
    async with inbox.reading(), asyncio.timeout(5):
        await inbox.room_for(0)
        await inbox.settled()
