import zipfile
from pathlib import Path

import pytest

from services.cli.output import UsageError
from services.cli.sequence import find_pictures, pack, unpack
from services.common.errors import Unavailable


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    directory = tmp_path / "frames"
    directory.mkdir()
    for name in ("f9.png", "f10.png", "f100.png", "other.png", "notes.txt", ".f1.png"):
        (directory / name).write_text(name)
    return directory


def test_a_directory_gives_its_pictures_by_number(frames: Path):
    found = find_pictures(frames)
    assert found is not None
    assert [p.name for p in found] == ["f9.png", "f10.png", "f100.png", "other.png"]


def test_a_pattern_gives_what_it_matches(frames: Path):
    for pattern in ("f%d.png", "f%03d.png"):
        found = find_pictures(frames / pattern)
        assert found is not None
        assert [p.name for p in found] == ["f9.png", "f10.png", "f100.png"]


def test_a_file_is_no_sequence(frames: Path):
    assert find_pictures(frames / "f9.png") is None
    assert find_pictures(frames / "none.mp4") is None


@pytest.mark.parametrize("source", ["empty", "frames/x%d.png", "none/f%d.png"])
def test_a_sequence_without_pictures_is_wrong_usage(frames: Path, source: str):
    (frames.parent / "empty").mkdir()
    with pytest.raises(UsageError, match="has no pictures"):
        find_pictures(frames.parent / source)


def test_pictures_are_packed_as_they_are(frames: Path, tmp_path: Path):
    pack([frames / "f10.png", frames / "f9.png"], tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {i.filename: (i.compress_type, archive.read(i)) for i in archive.infolist()} == {
            "f10.png": (zipfile.ZIP_STORED, b"f10.png"),
            "f9.png": (zipfile.ZIP_STORED, b"f9.png"),
        }


def test_a_result_is_unpacked_into_a_directory(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("000001.png", b"1")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "000001.png").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../1.png", "/tmp/1.png", "1.sh"])
def test_a_result_cannot_write_elsewhere(tmp_path: Path, name: str):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"1")
    with pytest.raises(Unavailable, match="holds a file named"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
