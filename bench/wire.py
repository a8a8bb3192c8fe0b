"""What the services add to a frame: a clip through all of them against the bare stages inside the worker."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from bench.service import Case, measure
from bench.table import print_table
from services.common.media import Packet
from services.common.pb.seedvr2.v1 import worker_pb2
from services.common.rpc.codec import PacketAssembler, encode_packets
from services.common.rpc.server import Server, open_channel

FRAMES, WIDTH, HEIGHT = 150, 320, 180
PACKET_BYTES = 200_000
_METHOD = "/bench.Echo/Chunks"


async def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as directory:
        await measure(Case(model="nano", width=WIDTH, height=HEIGHT, frames=FRAMES), Path(directory))
    await _wire_alone()


async def _wire_alone() -> None:
    """Packets of a 4K stream's size up a gRPC stream and back, as the codec sends them."""
    server = Server("127.0.0.1:0")
    handler = grpc.stream_stream_rpc_method_handler(_echo)
    generic = grpc.method_handlers_generic_handler("bench.Echo", {"Chunks": handler})
    server.add("bench.Echo", lambda s: s.add_generic_rpc_handlers((generic,)))
    async with open_channel(f"127.0.0.1:{await server.start()}") as channel:
        start = time.perf_counter()
        call = channel.stream_stream(_METHOD)(_requests())
        assembler = PacketAssembler()
        got = 0
        async for data in call:
            got += sum(1 for _ in assembler.feed(worker_pb2.Chunk.FromString(data)))
        elapsed = time.perf_counter() - start
    await server.stop(0)
    if got != FRAMES:
        raise SystemExit(f"{got} of {FRAMES} packets came back")
    rows = [(f"{PACKET_BYTES // 1000}", f"{elapsed / FRAMES * 1e3:.2f}", f"{2 * FRAMES * PACKET_BYTES / elapsed / 1e6:.0f}")]
    print_table("gRPC alone, one packet a frame, there and back", ("kB a packet", "ms/frame", "MB/s, both ways together"), rows)


async def _echo(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def _requests() -> AsyncIterator[bytes]:
    async def packets() -> AsyncIterator[Packet]:
        for index in range(FRAMES):
            yield Packet(pts=index, dts=index, duration=1, keyframe=True, data=bytes(PACKET_BYTES))

    async for chunk in encode_packets(packets()):
        yield chunk.SerializeToString()
        await asyncio.sleep(0)
