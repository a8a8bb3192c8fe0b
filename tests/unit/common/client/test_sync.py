import asyncio
import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.client import GatewayClient, SyncGatewayClient
from services.common.errors import DeadlinePassed, InvalidOption
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.unit.common.fake_gateway import FakeGateway, give_result
from tests.unit.common.relay import Relay


async def _use(relay: Relay, use: Callable[[SyncGatewayClient], object]) -> object:
    def run() -> object:
        with SyncGatewayClient(relay.address, timeout_s=10, patience_s=10) as client:
            return use(client)

    return await asyncio.to_thread(run)


def _methods(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, callable) if not name.startswith("_")}


def test_it_has_every_method_of_the_asynchronous_client():
    own = {"close", "deadline"}
    assert _methods(SyncGatewayClient) - own == _methods(GatewayClient) - {"aclose"}


@pytest.mark.parametrize("name", sorted(_methods(GatewayClient) - {"aclose"}))
def test_a_method_takes_and_says_what_its_asynchronous_one_does(name: str):
    mine, theirs = getattr(SyncGatewayClient, name), getattr(GatewayClient, name)
    assert mine.__doc__ == theirs.__doc__
    assert list(inspect.signature(mine).parameters) == list(inspect.signature(theirs).parameters)


async def test_a_file_goes_there_and_back(gateway: FakeGateway, relay: Relay, video: Path, tmp_path: Path):
    result = give_result(gateway, 1000)
    gateway.job.state = pb.JOB_STATE_SUCCEEDED

    def use(client: SyncGatewayClient) -> list[int]:
        upload = client.upload_file(video)
        job = client.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id)), "mine")
        states = [job.state for job in client.watch_job(job.job_id)]
        client.download_result(job.job_id, tmp_path / "out.mp4")
        return states

    assert await _use(relay, use) == [pb.JOB_STATE_SUCCEEDED]
    assert bytes(gateway.kept) == video.read_bytes()
    assert (tmp_path / "out.mp4").read_bytes() == result


async def test_pieces_are_read_and_written_one_by_one(gateway: FakeGateway, relay: Relay):
    result = give_result(gateway, 250_000)

    def use(client: SyncGatewayClient) -> bytes:
        client.create_upload("a.mp4", 6, "mine")
        client.write_upload("mine", 0, iter([b"abc", b"def"]), finish=True)
        info, pieces = client.read_result("job", 1000)
        assert info.size_bytes == len(result)
        return b"".join(pieces)

    assert await _use(relay, use) == result[1000:]
    assert bytes(gateway.kept) == b"abcdef"


async def test_errors_are_those_of_the_gateway(gateway: FakeGateway, relay: Relay):
    gateway.errors = [InvalidOption("Scale is 0.5 to 8.", field="request.target.scale")]
    with pytest.raises(InvalidOption, match=r"0\.5 to 8"):
        await _use(relay, lambda client: client.get_job("job"))


async def test_whoever_stops_watching_ends_the_stream(gateway: FakeGateway, relay: Relay):
    def use(client: SyncGatewayClient) -> None:
        for _ in client.watch_job("job"):
            break

    await _use(relay, use)
    await asyncio.wait_for(gateway.left.wait(), 5)


async def test_a_deadline_ends_what_is_being_waited_for_and_the_client_goes_on(gateway: FakeGateway, relay: Relay):
    def use(client: SyncGatewayClient) -> str:
        with pytest.raises(DeadlinePassed, match="is over"), client.deadline(0.3):
            for _ in client.watch_job("job"):
                pass
        return str(client.get_job("job").job_id)

    assert await _use(relay, use) == "job"
    await asyncio.wait_for(gateway.left.wait(), 5)


async def test_an_inner_deadline_does_not_extend_the_outer_one(gateway: FakeGateway, relay: Relay):
    def use(client: SyncGatewayClient) -> None:
        with client.deadline(0.3), client.deadline(3600):
            client.wait_job("job")

    with pytest.raises(DeadlinePassed):
        await _use(relay, use)


async def test_ctrl_c_ends_the_call_in_hand_and_leaves_a_client_that_works(gateway: FakeGateway, relay: Relay):
    program = f"""
from services.common.client import SyncGatewayClient
with SyncGatewayClient({relay.address!r}) as client:
    try:
        client.wait_job("job")
    except KeyboardInterrupt:
        print(client.get_job("job").job_id)
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    await asyncio.wait_for(gateway.watching.wait(), 20)
    process.send_signal(signal.SIGINT)
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, out.decode()) == (0, "job\n")
    await asyncio.wait_for(gateway.left.wait(), 5)
