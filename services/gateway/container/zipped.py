"""A zip of numbered pictures. Nothing of it is ever written to a disk, and names only sort it."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from services.common.errors import InvalidVideo
from services.gateway.container.opening import opened

if TYPE_CHECKING:
    from types import TracebackType

    from av.container import InputContainer

_MAGIC = b"PK\x03\x04"
_DEMUXERS = {
    ".png": "png_pipe", ".jpg": "jpeg_pipe", ".jpeg": "jpeg_pipe", ".webp": "webp_pipe", ".tif": "tiff_pipe",
    ".tiff": "tiff_pipe", ".bmp": "bmp_pipe",
}  # fmt: skip
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 1
_MAX_ENTRIES = 200_000
# What a worker takes as one packet.
_MAX_PICTURE_BYTES = 256 << 20


def is_archive(path: str) -> bool:
    """Whether a file begins as a zip does."""
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class Archive:
    """The pictures of a zip in the order of their numbers. Methods raise InvalidVideo for what can't be read."""

    def __init__(self, path: str) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise InvalidVideo(f"The zip can't be read ({error}); it is damaged or was cut off, send it again.") from error
        self.entries = _pictures(self._zip.infolist())
        """In order."""
        self._demuxer = _kind(self.entries)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    def read(self, number: int) -> bytes:
        """The file of a picture."""
        entry = self.entries[number]
        try:
            with self._zip.open(entry) as file:
                # Whatever its header says: one that unpacks to more is cut off here.
                data = file.read(_MAX_PICTURE_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
            raise InvalidVideo(f"{entry.filename!r} in the zip can't be unpacked ({error}); send the zip again.") from error
        if len(data) > _MAX_PICTURE_BYTES:
            raise InvalidVideo(f"{entry.filename!r} in the zip has more than {_MAX_PICTURE_BYTES >> 20} MiB; make it smaller.")
        return data

    @contextmanager
    def opened(self, number: int) -> Iterator[InputContainer]:
        """A picture, to be decoded."""
        try:
            with opened(io.BytesIO(self.read(number)), format=self._demuxer) as container:
                yield container
        except InvalidVideo as error:
            raise InvalidVideo(f"{self.entries[number].filename!r} in the zip: {error.message}") from error


def _pictures(entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    if len(entries) > _MAX_ENTRIES:
        raise InvalidVideo(f"The zip has {len(entries)} entries; at most {_MAX_ENTRIES} are taken. Send it in parts.")
    found = [entry for entry in entries if _is_picture(entry)]
    if not found:
        raise InvalidVideo("The zip has no pictures; put numbered PNG, JPEG, WebP or TIFF files into it.")
    for entry in found:
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            raise InvalidVideo(
                f"{entry.filename!r} in the zip is encrypted, or packed in a way that is not known here; store or deflate it."
            )
    return sorted(found, key=lambda entry: _by_number(entry.filename))


def _is_picture(entry: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(entry.filename)
    # Some systems put files of their own beside each one.
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not entry.filename.endswith("/") and not hidden and path.suffix.lower() in _DEMUXERS


def _by_number(name: str) -> list[tuple[int, int, str]]:
    """Sorts 9 before 10, however many digits there are."""
    parts = re.split(r"(\d{1,18})", name)
    return [(0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part) for part in parts]


def _kind(entries: list[zipfile.ZipInfo]) -> str:
    kinds = {_DEMUXERS[PurePosixPath(entry.filename).suffix.lower()] for entry in entries}
    if len(kinds) > 1:
        names = " and ".join(sorted(kind.removesuffix("_pipe") for kind in kinds))
        raise InvalidVideo(f"The zip has {names} pictures; put pictures of one kind into it.")
    return kinds.pop()
