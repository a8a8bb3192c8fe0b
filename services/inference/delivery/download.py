"""One file from the hub: resumed where it was cut, tried again with growing pauses, compared with its hash.

The library's own download is not used for the bytes: it throws away what it has when it ends early, so a pod that is
restarted would begin a file of many gigabytes anew, and its cache would hold the file a second time.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from typing import TypeVar

import httpx2

from services.common.durable import sync
from services.common.errors import ModelBroken, Unavailable
from services.inference.delivery.catalogue import SourceFile
from services.inference.delivery.files import sha256_of, size_of
from services.inference.delivery.hub import Hub, RemoteFile
from services.inference.delivery.progress import Stage, size_text
from services.inference.delivery.settings import DeliverySettings

_log = logging.getLogger(__name__)
_WORTHWHILE_BYTES = 64 << 10
"""A try that brings fewer bytes, and not the end of the file, counts as one that brought nothing."""
_LONGEST_ASKED_PAUSE_S = 900.0
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-")

OnBytes = Callable[[Stage, int, int], None]
"""Called with what is being done, bytes done and bytes in all (0: unknown)."""

T = TypeVar("T")


class Tries:
    """Counts tries in a row that brought nothing, and pauses between them."""

    def __init__(self, settings: DeliverySettings) -> None:
        self._settings = settings
        self.renew()

    def renew(self) -> None:
        """Something was brought."""
        self._count, self._pause_s = 0, self._settings.pause_s

    def pause(self, error: Unavailable) -> None:
        """Wait before the next try; raises where the last one was made."""
        self._count += 1
        if self._count >= self._settings.tries:
            text = (
                f"{error.message} Given up after {self._count} tries in a row; what was received is kept, so fetch again later."
            )
            raise Unavailable(text, retry_after_s=error.retry_after_s) from error
        # Pods that fail together shall not come back together.
        wait_s = self._pause_s * (0.75 + secrets.randbelow(500) / 1000)
        wait_s = max(wait_s, min(error.retry_after_s or 0.0, _LONGEST_ASKED_PAUSE_S))
        _log.warning("%s Trying again in %.1f s.", error.message, wait_s, extra={"tries": self._count})
        time.sleep(wait_s)
        self._pause_s = min(2 * self._pause_s, self._settings.longest_pause_s)


class Downloader:
    """Brings files from one hub."""

    def __init__(self, hub: Hub, settings: DeliverySettings) -> None:
        self._hub = hub
        self._settings = settings

    def describe(self, source: SourceFile) -> RemoteFile:
        """Ask the hub about a file, patiently.

        Raises:
            SettingsError: the hub doesn't have it, or not for us.
            Unavailable: no answer after all tries.
            ModelBroken: it has another content under this name.
        """
        remote = self._patiently(lambda: self._hub.describe(source))
        if source.sha256 and remote.sha256 and remote.sha256 != source.sha256:
            raise _other_content(source, source.sha256, remote.sha256)
        if not source.sha256 and not remote.sha256:
            _log.warning("nobody states a hash for %s of %s; it can't be checked", source.file, source.repository)
        return remote

    def download(self, source: SourceFile, remote: RemoteFile, part: Path, on_bytes: OnBytes) -> str:
        """Bring a file to ``part``, going on behind what is there; returns its SHA-256. A durable file, or an error.

        Raises:
            SettingsError: the hub doesn't give it, or not to us.
            Unavailable: it isn't whole after all tries; what was received is kept.
            ModelBroken: it has another content than it should.
            OSError: it can't be written; what was received is kept.
        """
        expected = source.sha256 or remote.sha256
        for first_time in (True, False):
            resumed = self._receive(source, remote, part, on_bytes)
            sync(part)
            size = size_of(part)
            found = sha256_of(part, lambda done, size=size: on_bytes("checking", done, size))  # type: ignore[misc]
            if expected in ("", found):
                return found
            part.unlink()
            if not (resumed and first_time):
                break
            # The machine may have lost power while the first piece was written.
            _log.warning("%s was put together from pieces that don't fit; it is downloaded anew", source.file)
        raise _other_content(source, expected, found)

    def _receive(self, source: SourceFile, remote: RemoteFile, part: Path, on_bytes: OnBytes) -> bool:
        """All bytes of a file; returns whether they came in more than one piece."""
        tries, resumed = Tries(self._settings), False
        while True:
            before = size_of(part)
            resumed = resumed or before > 0
            if before == remote.size_bytes > 0:
                return resumed
            try:
                self._try(source, remote, part, on_bytes)
                return resumed
            except Unavailable as error:
                if size_of(part) - before >= _WORTHWHILE_BYTES:
                    tries.renew()
                tries.pause(error)

    def _try(self, source: SourceFile, remote: RemoteFile, part: Path, on_bytes: OnBytes) -> None:
        """One request; Unavailable where it leaves the file unfinished."""
        # Unbuffered, so that nothing is lost when the process is killed.
        with part.open("ab", buffering=0) as file, self._hub.stream(source, remote.url, file.tell()) as response:
            _go_to_start(file, source, response)
            total, pace = remote.size_bytes or _total_bytes(response, file.tell()), _Pace(self._settings)
            for piece in response.iter_bytes():
                _write(file, piece)
                on_bytes("downloading", file.tell(), total)
                pace.took(len(piece))
            if total and file.tell() != total:
                raise Unavailable(f"{source.file} ended after {size_text(file.tell())} of {size_text(total)}.")

    def _patiently(self, ask: Callable[[], T]) -> T:
        tries = Tries(self._settings)
        while True:
            try:
                return ask()
            except Unavailable as error:
                tries.pause(error)


class _Pace:
    """Cuts a transfer that goes on so slowly that it will never end."""

    def __init__(self, settings: DeliverySettings) -> None:
        self._settings = settings
        self._since, self._bytes = time.monotonic(), 0

    def took(self, count: int) -> None:
        self._bytes += count
        elapsed = time.monotonic() - self._since
        if elapsed < self._settings.stall_s:
            return
        if self._bytes < elapsed * self._settings.slowest_bytes_s:
            raise Unavailable(f"The transfer all but stands still: {size_text(self._bytes)} in {elapsed:.0f} s.")
        self._since, self._bytes = time.monotonic(), 0


def _go_to_start(file: FileIO, source: SourceFile, response: httpx2.Response) -> None:
    """Cut the file to where the response goes on."""
    offset = file.tell()
    if response.status_code == HTTPStatus.PARTIAL_CONTENT and _first_byte(response) == offset:
        return
    file.truncate(0)
    file.seek(0)
    if response.status_code != HTTPStatus.OK:
        raise Unavailable(f"The hub doesn't go on with {source.file} after {size_text(offset)}; it is downloaded anew.")


def _first_byte(response: httpx2.Response) -> int | None:
    range_ = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    return int(range_["first"]) if range_ else None


def _total_bytes(response: httpx2.Response, offset: int) -> int:
    length = response.headers.get("content-length", "")
    return offset + int(length) if length.isdigit() and "content-encoding" not in response.headers else 0


def _write(file: FileIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        # A disk that is nearly full takes a part, and refuses the rest the next time.
        view = view[file.write(view) :]


def _other_content(source: SourceFile, expected: str, found: str) -> ModelBroken:
    return ModelBroken(
        f"{source.file} of {source.repository} is not the file that it should be: its SHA-256 is {found}, not {expected}. "
        "The repository was changed, or something on the way serves another file."
    )
