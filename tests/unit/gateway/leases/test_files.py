import asyncio
import resource
import signal
import sys
from pathlib import Path

import pytest

from services.common.errors import InvalidOption, StoreUnavailable
from services.gateway.keys import Ref
from services.gateway.leases.files import FileLeases
from tests.unit.gateway.examples import ref

_HOLDER = """
import asyncio, sys, pathlib
from services.gateway.keys import Ref
from services.gateway.leases.files import FileLeases
leases = FileLeases(pathlib.Path(sys.argv[1]))
assert asyncio.run(leases.acquire(Ref("local", "a")))
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_job_has_one_driver(tmp_path: Path):
    mine, theirs = FileLeases(tmp_path), FileLeases(tmp_path)
    lease = await mine.acquire(ref("a"))
    assert lease is not None
    assert await theirs.acquire(ref("a")) is None
    other = await theirs.acquire(ref("b"))
    assert other is not None
    await mine.release(lease)
    again = await theirs.acquire(ref("a"))
    assert again is not None
    assert again.token > lease.token
    await theirs.release(again)
    await theirs.release(other)


async def test_a_driver_that_is_killed_loses_its_lease(tmp_path: Path):
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, str(tmp_path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    leases = FileLeases(tmp_path)
    assert await leases.acquire(ref("a")) is None
    holder.kill()
    await holder.wait()
    lease = await leases.acquire(ref("a"))
    assert lease is not None
    assert lease.token == 2
    await leases.release(lease)


async def test_the_lease_of_a_job_that_is_gone_leaves_no_file(tmp_path: Path):
    leases = FileLeases(tmp_path)
    lease = await leases.acquire(ref("a"))
    assert lease is not None
    await leases.release(lease, forget=True)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


async def test_a_directory_that_can_not_be_written_is_an_unavailable_store(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        await FileLeases(tmp_path / "file").acquire(ref("a"))


async def test_a_disk_that_is_full_is_an_unavailable_store_and_nobody_holds_the_lease(tmp_path: Path):
    leases, other = FileLeases(tmp_path), FileLeases(tmp_path)
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # As with a full disk, a file can be made, and nothing be written to it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        with pytest.raises(StoreUnavailable, match="Can't take the lease"):
            await leases.acquire(ref("a"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    lease = await other.acquire(ref("a"))
    assert lease is not None
    await other.release(lease)


async def test_all_that_have_a_lease_are_told_whoever_has_it(tmp_path: Path):
    mine, theirs = FileLeases(tmp_path), FileLeases(tmp_path)
    assert await mine.jobs() == []
    held, gone, free = [await mine.acquire(job) for job in (ref("a"), ref("b", "somebody"), ref("c"))]
    assert held is not None
    assert gone is not None
    assert free is not None
    await mine.release(free)
    await mine.release(gone, forget=True)
    (tmp_path / "local/something-else").touch()
    assert await theirs.jobs() == [ref("a"), ref("c")]
    await mine.release(held)


async def test_equal_ids_of_two_owners_have_a_lease_each(tmp_path: Path):
    leases = FileLeases(tmp_path)
    mine, theirs = await leases.acquire(ref("a")), await leases.acquire(ref("a", "somebody"))
    assert mine is not None
    assert theirs is not None
    assert (mine.ref, theirs.ref) == (ref("a"), ref("a", "somebody"))
    assert not mine.lost.is_set()
    await leases.release(mine)
    await leases.release(theirs)


@pytest.mark.parametrize("wrong", [ref("../a"), ref("a", "..")])
async def test_no_name_leads_out_of_the_directory(tmp_path: Path, wrong: Ref):
    with pytest.raises(InvalidOption):
        await FileLeases(tmp_path / "leases").acquire(wrong)
