"""The model volume: what is ready on it, what is half there, and who may write.

    <directory>/.lock                       held by the one process that downloads
    <directory>/.incomplete/progress.json   how far that process is, for those that wait
    <directory>/.incomplete/<name>/         parts, and the set that grows
    <directory>/<name>/                     a ready model; complete.json lists its files with their hashes

A model's directory appears by one rename when all its files and its marker are durable, so it is whole or not there.
Everything lies on the volume itself and nothing is copied: a model takes its own size, and while it is converted at most
one file more.
"""

import contextlib
import errno
import fcntl
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from services.common.durable import sync
from services.common.errors import SettingsError
from services.inference.delivery.catalogue import SourceFile
from services.inference.delivery.files import read_json, size_of, write_json
from services.inference.delivery.progress import Progress
from services.inference.model_files import Role

MARKER = "complete.json"
SCHEMA_VERSION = 1

_INCOMPLETE = ".incomplete"
_OLD = "old"
_POLL_S = 0.5
_TELL_EVERY_S = 1.0
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file of a ready model, and what it was made from."""

    role: Role
    """What it is in the model."""

    name: str
    """In the model's directory."""

    size_bytes: int
    """Of this file."""

    sha256: str
    """Of this file."""

    repository: str
    """Of the source, or its path where it was a file of the machine."""

    file: str
    """Of the source, in its repository."""

    revision: str
    """That was asked for; empty: the newest."""

    commit: str
    """That the hub gave; empty where it named none."""

    source_sha256: str
    """Of the source as it was downloaded."""

    def answers(self, wanted: SourceFile) -> bool:
        """Whether it was made from the file that is wanted now."""
        if wanted.sha256:
            return self.source_sha256 == wanted.sha256
        same_place = (self.repository, self.file) == (wanted.repository, wanted.file)
        return same_place and wanted.revision in ("", self.revision, self.commit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Says that a model is whole."""

    model: str
    """Its name."""

    files: tuple[FileRecord, ...]
    """All of them."""

    @property
    def sha256(self) -> dict[str, str]:
        """Of all files, by name."""
        return {record.name: record.sha256 for record in self.files}

    def answers(self, wanted: Iterable[SourceFile]) -> bool:
        """Whether all files that are wanted now are in it."""
        found = {record.role: record for record in self.files}
        return all(source.role in found and found[source.role].answers(source) for source in wanted)


class Staging:
    """Where one model grows, file by file, until it is published."""

    def __init__(self, volume: "Volume", name: str) -> None:
        self._volume = volume
        self._root = volume.directory
        self._name = name
        self._home = self._root / _INCOMPLETE / name
        self._set = self._home / "set"
        self._set.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._home / _OLD, ignore_errors=True)

    @property
    def home(self) -> Path:
        """Of everything that belongs to this model."""
        return self._home

    def part(self, role: Role, key: str) -> Path:
        """Where a file is downloaded to. Another ``key`` means other content, which never continues this one."""
        return self._home / f"{role}-{key}.part"

    def file(self, name: str) -> Path:
        """Where a file that is done belongs."""
        return self._set / name

    def note(self, record: FileRecord) -> None:
        """Write down, durably, what a file that is done, or about to be moved to its place, was made from."""
        write_json(self._home / f"{record.role}.json", asdict(record))

    def record(self, source: SourceFile) -> FileRecord | None:
        """Of a file that is done and is the one that is wanted."""
        record = _record(read_json(self._home / f"{source.role}.json"))
        done = record is not None and record.answers(source) and size_of(self._set / record.name) == record.size_bytes
        return record if done else None

    def adopt(self, wanted: Iterable[SourceFile]) -> None:
        """Take over what is wanted and still there of an earlier set, which stays whole beside this one."""
        marker, sources = self._volume.marker(self._name), {source.role: source for source in wanted}
        for record in marker.files if marker else ():
            source = sources.get(record.role)
            if source and record.answers(source) and self._volume.has(self._name, record):
                # Where there are no links, or there is a newer file, nothing is lost but time.
                with contextlib.suppress(OSError):
                    self.file(record.name).hardlink_to(self._root / self._name / record.name)
                    self.note(record)

    def sweep(self, *, parts: Iterable[Path], done: Iterable[FileRecord]) -> None:
        """Remove what an earlier try left behind and is not wanted any more, to make room."""
        kept = {*parts, *(self.file(record.name) for record in done)}
        for path in (*self._home.glob("*.part"), *self._set.iterdir()):
            if path not in kept:
                path.unlink()

    def publish(self, files: Iterable[FileRecord]) -> None:
        """Put the whole set in its place by one rename; an older one makes way."""
        marker = Marker(model=self._name, files=tuple(files))
        write_json(self._set / MARKER, {"schema_version": SCHEMA_VERSION} | asdict(marker))
        target = self._root / self._name
        with contextlib.suppress(FileNotFoundError):
            target.rename(self._home / _OLD)
        self._set.rename(target)
        sync(self._root)
        shutil.rmtree(self._home)


class Volume:
    """A directory of models. Reading it changes nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._told = 0.0

    def marker(self, name: str) -> Marker | None:
        """Of a model; None where it has none that can be read."""
        record = read_json(self.directory / name / MARKER)
        if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
            return None
        files = [_record(each) for each in record.get("files", ())]
        return Marker(model=name, files=tuple(each for each in files if each)) if files and all(files) else None

    def ready(self, name: str) -> Marker | None:
        """The marker of a model whose files are all there with their sizes; None where something is missing."""
        marker = self.marker(name)
        return marker if marker and all(self.has(name, record) for record in marker.files) else None

    def has(self, name: str, record: FileRecord) -> bool:
        """Whether a model's file is there with its size."""
        return size_of(self.directory / name / record.name) == record.size_bytes

    def has_foreign_files(self, name: str) -> bool:
        """Whether the model's directory holds something that was not put there by a download."""
        directory = self.directory / name
        return directory.is_dir() and not (directory / MARKER).exists() and any(directory.iterdir())

    def has_parts(self, name: str) -> bool:
        """Whether a download of the model was begun."""
        return (self.directory / _INCOMPLETE / name).is_dir()

    def is_fetching(self, name: str) -> bool:
        """Whether a process downloads the model now."""
        return self.has_parts(name) and self.told().model == name and self.busy()

    def staging(self, name: str) -> Staging:
        """Where the model grows. For the holder of the lock."""
        return Staging(self, name)

    @contextlib.contextmanager
    def exclusive(self, on_wait: Callable[[Progress], None]) -> Iterator[None]:
        """Be the only process that downloads to this volume; wait for that, telling how far the other one is.

        The kernel frees the lock of a process that is killed.

        Raises:
            SettingsError: the volume has no locks.
            OSError: it can't be written.
        """
        (self.directory / _INCOMPLETE).mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("ab") as lock:
            while not self._try_lock(lock):
                on_wait(replace(self.told(), stage="waiting"))
                time.sleep(_POLL_S)
            try:
                yield
            finally:
                self._progress_file.unlink(missing_ok=True)

    def busy(self) -> bool:
        """Whether a process downloads now."""
        try:
            with (self.directory / ".lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def tell(self, progress: Progress) -> None:
        """Let those that wait know how far this process is. Cheap enough for every piece of a file."""
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_S:
            self._told = now
            # Only words: where they can't be written, the file itself says so.
            with contextlib.suppress(OSError):
                write_json(self._progress_file, asdict(progress), durable=False)

    def told(self) -> Progress:
        """What the process that downloads said last."""
        record = read_json(self._progress_file)
        try:
            return Progress(**record)
        except TypeError:
            return Progress(stage="downloading")

    @property
    def _progress_file(self) -> Path:
        return self.directory / _INCOMPLETE / "progress.json"

    def _try_lock(self, lock: BinaryIO) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise SettingsError(
                    f"The file system of {self.directory} has no locks; use one that has, or fetch to another volume.",
                    field="directory",
                ) from error
            raise
        return True


def _record(value: Any) -> FileRecord | None:
    try:
        return FileRecord(**value)
    except TypeError:
        return None
