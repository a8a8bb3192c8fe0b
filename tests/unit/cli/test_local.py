import fcntl
import re
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


async def test_a_model_that_was_not_fetched_is_refused_with_the_command_that_does(tmp_path: Path):
    options = StackOptions(data_directory=tmp_path, model="seedvr2-3b", model_directory=str(tmp_path / "models"))
    words = f"can't start: The model seedvr2-3b is not in {tmp_path}/models. Fetch it: `seedvr2 models fetch seedvr2-3b "
    with pytest.raises(SettingsError, match=re.escape(words)):
        async with LocalStack(options, print):
            pass
