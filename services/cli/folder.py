"""A folder whose files are restored one by one: which they are, what their results are called, and which are done."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from services.cli.output import UsageError
from services.cli.sequence import PICTURES
from services.common.durable import replaced_when_done
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

RECORD = ".seedvr2.json"
"""File in the output folder that tells what its files were made of."""

_SCHEMA_VERSION = 1
_VIDEOS = frozenset({
    ".mp4", ".mkv", ".mov", ".m4v", ".avi", ".webm", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".dv", ".zip",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A result that was written, and what it was made of."""

    output: str
    """Its name in the output folder."""

    output_bytes: int
    """Its size."""

    source_bytes: int
    """Size of the source."""

    source_modified_ns: int
    """When the source was last written, nanoseconds since 1970."""

    options: str
    """Of the request, as :func:`options_key` says."""


class Record:
    """What is known of an output folder. Methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / RECORD
        self._made: dict[str, Made] = {}
        if self._path.exists():
            record = json.loads(self._path.read_bytes())
            if record.get("schema_version") != _SCHEMA_VERSION:
                raise UsageError(f"seedvr2 restore: {self._path} is of another release; choose another output directory.")
            self._made = {name: Made(**made) for name, made in record["files"].items()}

    def is_done(self, source: Path, options: str) -> bool:
        """Whether the result of this source with these options is there."""
        made = self._made.get(source.name)
        return made is not None and made == _made(source, self._path.with_name(made.output), options)

    def owns(self, output: Path) -> bool:
        """Whether an earlier run wrote this file."""
        return any(made.output == output.name for made in self._made.values())

    def output(self, source: Path) -> Path:
        """The result of a source that is done."""
        return self._path.with_name(self._made[source.name].output)

    def add(self, source: Path, output: Path, options: str) -> None:
        """Write down that a result is there."""
        made = _made(source, output, options)
        if made is not None:
            self._made[source.name] = made
        files = {name: asdict(made) for name, made in sorted(self._made.items())}
        with replaced_when_done(self._path) as file:
            file.write(json.dumps({"schema_version": _SCHEMA_VERSION, "files": files}, indent=1).encode())


def restores_each(source: Path, *, sequence: bool, each: bool) -> bool:
    """Whether a path is a folder whose files are restored one by one, and not a sequence of pictures or a file.

    A folder with a video in it is; so is one of pictures that are not numbered alike.

    Raises:
        UsageError: it is asked to be one and is none.
    """
    if each and not source.is_dir():
        raise UsageError(f"seedvr2 restore: {source} is not a directory; leave out --each.")
    if sequence or not source.is_dir():
        return False
    return each or any(path.suffix.lower() in _VIDEOS for path in _visible(source)) or not _numbered_alike(source)


def files_of(source: Path) -> tuple[list[Path], int]:
    """The videos and pictures of a folder by name, and how many other files are in it.

    Raises:
        UsageError: there are none.
    """
    visible = _visible(source)
    found = [path for path in visible if path.suffix.lower() in _VIDEOS | PICTURES]
    if not found:
        raise UsageError(f"seedvr2 restore: the directory {source} has neither videos nor pictures.")
    return sorted(found), len(visible) - len(found)


def stems(files: Sequence[Path]) -> dict[Path, str]:
    """What each file's result is called, without the ending; files that differ by theirs only keep it."""
    names = [path.stem.casefold() for path in files]
    return {
        path: path.stem if names.count(path.stem.casefold()) == 1 else f"{path.stem}-{path.suffix[1:].lower()}" for path in files
    }


def options_key(request: pb.JobRequest) -> str:
    """Names everything of a request but its source."""
    options = pb.JobRequest()
    options.CopyFrom(request)
    options.ClearField("source")
    return hashlib.sha256(options.SerializeToString(deterministic=True)).hexdigest()[:32]


def upload_key(source: Path, sha256: str) -> str:
    """Id of a file's upload: the same at each run."""
    return hashlib.sha256(f"{sha256} {source.name}".encode()).hexdigest()[:32]


def job_key(upload_id: str, options: str) -> str:
    """Id of the job that restores an upload with some options: the same at each run."""
    return hashlib.sha256(f"{upload_id} {options}".encode()).hexdigest()[:32]


def _made(source: Path, output: Path, options: str) -> Made | None:
    if not output.is_file():
        return None
    stat = source.stat()
    return Made(
        output=output.name, output_bytes=output.stat().st_size, source_bytes=stat.st_size,
        source_modified_ns=stat.st_mtime_ns, options=options,
    )  # fmt: skip


def _visible(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")]


def _numbered_alike(directory: Path) -> bool:
    """Whether a folder's pictures differ by a number only; also where there are none, which is told later."""
    names = {re.sub(r"\d+", "0", path.name.lower()) for path in _visible(directory) if path.suffix.lower() in PICTURES}
    return len(names) <= 1
