import fcntl
from pathlib import Path

import pytest

from services.cli.local import LocalStack, StackOptions
from services.common.errors import SettingsError, Unavailable


async def test_a_data_directory_in_use_is_refused_before_anything_starts(tmp_path: Path):
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match=f"Another seedvr2 is using {tmp_path}"):
            async with LocalStack(StackOptions(data_directory=tmp_path), print):
                pass
    assert list((tmp_path / "logs").iterdir()) == []


async def test_a_data_directory_that_can_not_be_made_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"Can't use .*file/data as data directory: Not a directory\."):
        async with LocalStack(StackOptions(data_directory=tmp_path / "file" / "data"), print):
            pass


async def test_an_unknown_model_is_a_sentence_and_nothing_goes_on(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"The inference service can't start: .*none-such"):
        async with LocalStack(StackOptions(data_directory=tmp_path, model="none-such"), print):
            pass
