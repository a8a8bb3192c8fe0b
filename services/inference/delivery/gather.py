"""Gather one model: bring what is missing, convert it, publish the set."""

import hashlib
import logging
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.common.durable import sync
from services.common.errors import ModelBroken, SettingsError
from services.inference.delivery.catalogue import SourceFile
from services.inference.delivery.conversion import Convert
from services.inference.delivery.download import Downloader
from services.inference.delivery.files import require_space, sha256_of, size_of
from services.inference.delivery.hub import RemoteFile
from services.inference.delivery.progress import Stage
from services.inference.delivery.volume import FileRecord, Staging

_log = logging.getLogger(__name__)
_KEY_LENGTH = 16


class Tell(Protocol):
    """Takes how far a file is."""

    def __call__(self, file: str, stage: Stage, done_bytes: int, total_bytes: int) -> None:
        """``total_bytes`` is 0 where it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    source: SourceFile
    remote: RemoteFile | None
    part: Path

    @property
    def size_bytes(self) -> int:
        return self.remote.size_bytes if self.remote else 0

    @property
    def missing_bytes(self) -> int:
        return max(0, self.size_bytes - size_of(self.part))


class Gathering:
    """Of one model, by the process that holds the volume's lock."""

    def __init__(
        self, staging: Staging, downloader: Downloader, *, convert: Convert | None, keep_free_bytes: int, tell: Tell
    ) -> None:
        self._staging = staging
        self._downloader = downloader
        self._convert = convert
        self._keep_free_bytes = keep_free_bytes
        self._tell = tell

    def run(self, wanted: tuple[SourceFile, ...]) -> None:
        """Publish a set of these files; see ``Delivery.fetch`` for the errors.

        Files that are done already, or are whole in an earlier set, stay.
        """
        self._staging.adopt(wanted)
        missing = [source for source in wanted if not self._staging.record(source)]
        # All are asked for first, so that a wrong name or token shows before gigabytes were moved.
        items = [self._item(source) for source in missing]
        done = [record for source in wanted if (record := self._staging.record(source))]
        self._staging.sweep(parts=[item.part for item in items], done=done)
        self._require_space(items)
        for item in items:
            self._bring(item)
        self._staging.publish([record for source in wanted if (record := self._staging.record(source))])

    def _item(self, source: SourceFile) -> _Item:
        remote = None if source.path else self._downloader.describe(source)
        return _Item(source=source, remote=remote, part=self._staging.part(source.role, _key(source, remote)))

    def _require_space(self, items: list[_Item]) -> None:
        needed = sum(item.missing_bytes for item in items)
        if self._convert:
            # A source goes when its bf16 form, never larger, is written; both are there for a while.
            needed += max((item.size_bytes for item in items), default=0)
        require_space(self._staging.home, needed, self._keep_free_bytes)

    def _bring(self, item: _Item) -> None:
        source, remote = item.source, item.remote
        if remote:
            sha256 = self._downloader.download(source, remote, item.part, lambda *how_far: self._tell(source.file, *how_far))
        else:
            sha256 = _copy(source, item.part)
        if self._convert:
            self._add_converted(item, sha256, self._convert)
        else:
            self._add_as_it_is(item, sha256)
        _log.info("%s is there", source.file, extra={"sha256": sha256, "commit": remote.commit if remote else ""})

    def _add_converted(self, item: _Item, sha256: str, convert: Convert) -> None:
        target = self._staging.file(f"{item.source.role}.safetensors")
        self._tell(item.source.file, "converting", 0, item.size_bytes)
        convert(item.part, target, lambda *how_far: self._tell(item.source.file, "converting", *how_far))
        sync(target)
        converted_sha256 = sha256_of(target, lambda done: self._tell(item.source.file, "checking", done, size_of(target)))
        self._staging.note(_record(item, target, size_of(target), converted_sha256, sha256))
        item.part.unlink()

    def _add_as_it_is(self, item: _Item, sha256: str) -> None:
        target = self._staging.file(item.source.role + Path(item.source.file).suffix)
        # The note first: without the file it says nothing, and without the note the file would be fetched again.
        self._staging.note(_record(item, target, size_of(item.part), sha256, sha256))
        item.part.rename(target)


def _record(item: _Item, target: Path, size_bytes: int, sha256: str, source_sha256: str) -> FileRecord:
    source = item.source
    return FileRecord(
        role=source.role,
        name=target.name,
        size_bytes=size_bytes,
        sha256=sha256,
        repository=str(source.path or source.repository),
        file=source.file,
        revision=source.revision,
        commit=item.remote.commit if item.remote else "",
        source_sha256=source_sha256,
    )


def _key(source: SourceFile, remote: RemoteFile | None) -> str:
    """Equal for equal content only, so that a part is never continued with another file's bytes."""
    if remote is None:
        return "mounted"
    if sha256 := source.sha256 or remote.sha256:
        return sha256[:_KEY_LENGTH]
    if not remote.commit and not remote.etag:
        return secrets.token_hex(_KEY_LENGTH // 2)
    identity = "\n".join((source.repository, source.file, remote.commit, remote.etag))
    return hashlib.sha256(identity.encode()).hexdigest()[:_KEY_LENGTH]


def _copy(source: SourceFile, part: Path) -> str:
    """Take a file of this machine; returns its SHA-256. A durable file."""
    path = source.path or Path(source.file)
    try:
        mounted = path.open("rb")
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}.", field="text_embedding") from error
    with mounted, part.open("wb") as file:
        shutil.copyfileobj(mounted, file)
    sync(part)
    found = sha256_of(part, lambda done: None)
    if source.sha256 and found != source.sha256:
        part.unlink()
        raise ModelBroken(f"{path} is not {source.file}: its SHA-256 is {found}, not {source.sha256}. Mount the right file.")
    return found
