import zipfile
from pathlib import Path

import pytest

from services.common.errors import InvalidVideo
from services.gateway.container.zipped import Archive, is_archive
from tests.clips import make


def pack(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return str(path)


def names(archive: Archive) -> list[str]:
    return [entry.filename for entry in archive.entries]


def test_pictures_come_by_number_and_nothing_else_does(tmp_path: Path):
    entries = ["b/10.png", "b/9.png", "b/0100.PNG", "__MACOSX/b/._9.png", ".hidden.png", "notes.txt", "b/"]
    path = pack(tmp_path / "a.zip", dict.fromkeys(entries, b"x"), zipfile.ZIP_DEFLATED)
    with Archive(path) as archive:
        assert names(archive) == ["b/9.png", "b/10.png", "b/0100.PNG"]
        assert archive.read(1) == b"x"


def test_a_picture_can_be_opened(tmp_path: Path):
    picture = make.image(tmp_path / "a.png").read_bytes()
    with Archive(pack(tmp_path / "a.zip", {"1.png": picture})) as archive, archive.opened(0) as container:
        assert next(container.decode(video=0)).width == 64


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"a.txt": b""}, "has no pictures"),
        ({"1.png": b"", "2.jpg": b""}, "jpeg and png pictures"),
    ],
)
def test_what_is_no_sequence_is_refused_in_words(tmp_path: Path, entries: dict[str, bytes], words: str):
    with pytest.raises(InvalidVideo, match=words):
        Archive(pack(tmp_path / "a.zip", entries))


def test_packing_that_is_not_known_is_refused(tmp_path: Path):
    with pytest.raises(InvalidVideo, match="store or deflate"):
        Archive(pack(tmp_path / "a.zip", {"1.png": b"x"}, zipfile.ZIP_LZMA))


def test_a_damaged_zip_is_refused(tmp_path: Path):
    whole = Path(pack(tmp_path / "a.zip", {"1.png": b"x" * 1000}))
    data = whole.read_bytes()
    whole.write_bytes(data[:600])
    assert is_archive(str(whole))
    with pytest.raises(InvalidVideo, match="damaged or was cut off"):
        Archive(str(whole))
    whole.write_bytes(data.replace(b"x" * 1000, b"y" * 1000))
    with Archive(str(whole)) as archive, pytest.raises(InvalidVideo, match="can't be unpacked"):
        archive.read(0)


def test_an_entry_without_a_name_is_no_picture(tmp_path: Path):
    path = Path(pack(tmp_path / "a.zip", {"a.png": b"x", "b.png": b"y"}))
    path.write_bytes(path.read_bytes().replace(b"a.png", b"\0.png"))
    with Archive(str(path)) as archive:
        assert names(archive) == ["b.png"]


def test_a_picture_that_unpacks_to_too_much_is_refused(tmp_path: Path):
    path = pack(tmp_path / "bomb.zip", {"1.png": bytes((256 << 20) + 1)}, zipfile.ZIP_DEFLATED)
    with Archive(path) as archive, pytest.raises(InvalidVideo, match="more than 256 MiB"):
        archive.read(0)


def test_a_video_is_no_archive(tmp_path: Path):
    assert not is_archive(str(make.image(tmp_path / "a.png")))
