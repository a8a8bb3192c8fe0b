import os
from pathlib import Path

import pytest

from services.common.errors import SettingsError
from services.common.watched import Watched


def _number(data: bytes) -> int:
    if not data.isdigit():
        raise ValueError("it is no number")
    return int(data)


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name("draft")
    draft.write_bytes(data)
    draft.replace(path)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path):
    path, reads = tmp_path / "file", []
    path.write_bytes(b"1")
    watched = Watched([path], lambda data: reads.append(data) or _number(data))
    assert [watched.get(), watched.get()] == [1, 1]
    assert reads == [b"1"]
    _replace(path, b"2")
    assert watched.get() == 2
    assert reads == [b"1", b"2"]


def test_a_link_that_is_swapped_as_kubernetes_does_it_is_noticed(tmp_path: Path):
    for name, data in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(data)
    (tmp_path / "data").symlink_to("one")
    (tmp_path / "file").symlink_to("data/file")
    watched = Watched([tmp_path / "file"], _number)
    assert watched.get() == 1
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "data")
    assert watched.get() == 2


def test_a_file_that_cannot_be_used_leaves_what_was_there_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    watched = Watched([path], _number)
    _replace(path, b"x")
    assert [watched.get(), watched.get()] == [1, 1]
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "it is no number" in caplog.text
    path.unlink()
    assert watched.get() == 1
    _replace(path, b"3")
    assert watched.get() == 3


def test_at_the_start_a_file_must_be_there_and_usable(tmp_path: Path):
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        Watched([tmp_path / "file"], _number)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"file: it is no number\."):
        Watched([tmp_path / "file"], _number)


def test_several_files_make_one_value(tmp_path: Path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"1")
    watched = Watched(paths, lambda a, b: a + b)
    os.utime(paths[1], ns=(5, 5))
    assert watched.get() == b"11"
    _replace(paths[1], b"2")
    assert watched.get() == b"12"
