import asyncio
import sys
from pathlib import Path

import pytest

from services.common.errors import StoreUnavailable
from services.gateway.leases import FileLeases

_HOLDER = """
import sys, pathlib
from services.gateway.leases import FileLeases
leases = FileLeases(pathlib.Path(sys.argv[1]))
assert leases.acquire("a")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_job_has_one_driver(tmp_path: Path):
    mine, theirs = FileLeases(tmp_path), FileLeases(tmp_path)
    lease = mine.acquire("a")
    assert lease is not None
    assert theirs.acquire("a") is None
    other = theirs.acquire("b")
    assert other is not None
    mine.release(lease)
    again = theirs.acquire("a")
    assert again is not None
    assert again.token > lease.token
    theirs.release(again)
    theirs.release(other)


async def test_a_driver_that_is_killed_loses_its_lease(tmp_path: Path):
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDER, str(tmp_path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    leases = FileLeases(tmp_path)
    assert leases.acquire("a") is None
    holder.kill()
    await holder.wait()
    lease = leases.acquire("a")
    assert lease is not None
    assert lease.token == 2
    leases.release(lease)


def test_the_lease_of_a_job_that_is_gone_leaves_no_file(tmp_path: Path):
    leases = FileLeases(tmp_path)
    lease = leases.acquire("a")
    assert lease is not None
    leases.release(lease, forget=True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_can_not_be_written_is_an_unavailable_store(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        FileLeases(tmp_path / "file").acquire("a")
