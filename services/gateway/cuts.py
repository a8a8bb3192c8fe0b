"""Cuts of a job's frames: found once, kept beside the job, and never a reason for it to fail."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from services.common.errors import InternalError, InvalidVideo, NotFound
from services.common.records import record_fields
from services.gateway import keys
from services.gateway.keys import Ref
from services.gateway.ports import ContainerFiles
from services.gateway.source import SourceIndex
from services.gateway.sources import Source, Sources
from services.gateway.store.base import Store

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Where shots begin."""

    frames: tuple[int, ...] = ()
    """Source indices of frames that begin a shot, ascending."""

    note: str = ""
    """Why there may be more of them; empty: all frames were looked at."""


class CutFinder:
    """Looks for cuts. Methods raise what the store raises."""

    def __init__(self, *, sources: Sources, store: Store, container: ContainerFiles, limit_s: float) -> None:
        """``limit_s``: seconds that looking may take; 0: no looking."""
        self._sources = sources
        self._store = store
        self._container = container
        self._limit_s = limit_s

    async def job_cuts(
        self, ref: Ref, source: Source, index: SourceIndex, first: int, end: int, on_progress: Callable[[float], None]
    ) -> Cuts:
        """Cuts among the frames [first, end), kept with a job: its plan counts on them, also when it is made anew."""
        if not self._limit_s or end - first < 2:
            return Cuts()
        key = keys.job(ref, "cuts.json")
        with contextlib.suppress(NotFound):
            return cuts_from_json((await self._store.get(key))[0])
        cuts = await self._find(source, index, first, end, on_progress)
        await self._store.put(key, cuts_to_json(cuts))
        return cuts

    async def _find(self, source: Source, index: SourceIndex, first: int, end: int, on_progress: Callable[[float], None]) -> Cuts:
        found: list[int] = []
        reached, note = first, ""
        try:
            async with asyncio.timeout(None) as patience, self._sources.file(source.upload.ref) as path:
                looking = self._container.cuts(path, source.info, index, first, end)
                async with contextlib.aclosing(looking):
                    async for reached, begins_shot in looking:
                        # Waiting for its turn doesn't count.
                        if patience.when() is None:
                            patience.reschedule(asyncio.get_running_loop().time() + self._limit_s)
                        if begins_shot:
                            found.append(reached)
                        on_progress((reached - first) / (end - first))
        except TimeoutError:
            note = _note(reached, f"it took longer than {self._limit_s:g} s")
        except (InvalidVideo, InternalError) as error:
            note = _note(reached, error.message)
        return Cuts(frames=tuple(sorted(set(found))), note=note)


def _note(reached: int, reason: str) -> str:
    why = reason.rstrip(".")
    return f"Cuts were looked for up to frame {reached} only ({why}); later shots may begin with traces of the shot before."


def cuts_to_json(cuts: Cuts) -> bytes:
    """The stored form."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(cuts)}).encode()


def cuts_from_json(data: bytes) -> Cuts:
    """Read :func:`cuts_to_json` back.

    Raises:
        NewerRelease: a later release wrote them.
        ValueError: no cuts.
    """
    record = record_fields(data, SCHEMA_VERSION, "cuts")
    return Cuts(frames=tuple(record["frames"]), note=record["note"])
