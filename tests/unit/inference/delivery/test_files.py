"""Durable file work and its failures in words."""

import errno
import hashlib
from pathlib import Path

import pytest

from services.common.errors import ServiceError, SettingsError, StoreFull, StoreUnavailable
from services.inference.delivery.files import read_json, require_space, sha256_of, size_of, volume_errors, write_json


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EFBIG, StoreFull),
        (errno.EROFS, SettingsError),
        (errno.EACCES, SettingsError),
        (errno.EIO, StoreUnavailable),
    ],
    ids=errno.errorcode.get,
)
def test_what_the_file_system_says_becomes_one_of_our_errors(number: int, error: type[ServiceError]):
    with pytest.raises(error, match="/models"), volume_errors(Path("/models")):
        raise OSError(number, "words of the system")


def test_space_is_required_besides_what_must_stay_free(tmp_path: Path):
    require_space(tmp_path, 1, 1)
    require_space(tmp_path, 0, 10**18)
    with pytest.raises(StoreFull, match=r"the download needs 1 B and leaves 1000000\.0 TB free"):
        require_space(tmp_path, 1, 10**18)


def test_a_record_that_was_cut_off_counts_as_none(tmp_path: Path):
    write_json(tmp_path / "record.json", {"a": 1})
    assert read_json(tmp_path / "record.json") == {"a": 1}
    (tmp_path / "record.json").write_text('{"a": ')
    assert read_json(tmp_path / "record.json") is None
    assert read_json(tmp_path / "other.json") is None


def test_hashing_tells_how_far_it_is(tmp_path: Path):
    content, seen = bytes(range(256)) * 40_000, list[int]()
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file", seen.append) == hashlib.sha256(content).hexdigest()
    assert seen == [8 << 20, len(content)]
    assert (size_of(tmp_path / "file"), size_of(tmp_path / "none")) == (len(content), 0)
