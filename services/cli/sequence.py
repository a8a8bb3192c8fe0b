"""A sequence of pictures: found in a directory or by a pattern, sent as one zip, and taken out of one."""

import re
import zipfile
from pathlib import Path

from services.cli.output import UsageError
from services.common.errors import Unavailable

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
_NUMBER = re.compile(r"%(0?)(\d*)d")
_NAME = re.compile(r"\d{1,18}\.png")


def find_pictures(source: Path) -> list[Path] | None:
    """The pictures of a directory, or of a pattern like frames/%04d.png, by number; None where ``source`` is a file.

    Raises:
        UsageError: there are none.
    """
    if source.is_dir():
        found = [path for path in source.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
        where = "the directory"
    elif _NUMBER.search(source.name) and not source.exists():
        number = _NUMBER.split(source.name)
        pattern = re.compile(re.escape(number[0]) + r"\d+" + re.escape(number[3]))
        folder = source.parent
        found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)] if folder.is_dir() else []
        where = "the pattern"
    else:
        return None
    if not found:
        raise UsageError(f"seedvr2 restore: {where} {source} has no pictures ({', '.join(sorted(PICTURES))}).")
    return sorted(found, key=_by_number)


def pack(pictures: list[Path], archive: Path) -> None:
    """Write the pictures into a zip as they are: they are compressed already. Raises OSError."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for picture in pictures:
            file.write(picture, picture.name)


def unpack(archive: Path, directory: Path) -> None:
    """Write the pictures of a result into a directory, which is made where there is none.

    Raises:
        Unavailable: the zip holds something else.
        OSError: a file can't be written.
    """
    directory.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if not _NAME.fullmatch(name):
                raise Unavailable(f"The result holds a file named {name!r}; download it again.")
            (directory / name).write_bytes(file.read(name))


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    """Sorts 9 before 10, however many digits there are."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts)]
