"""All workers, wherever they are found: they come, go, and are replaced."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, Callable, Sequence

from services.common.errors import SettingsError, WorkerUnavailable
from services.common.media import Packet, SpanTask
from services.common.rpc.tls import ChannelTls, channel_credentials
from services.gateway.fleet.endpoints import Endpoint, Finder, joined
from services.gateway.fleet.member import Member
from services.gateway.ports import OnSegment, OnStage, SpanOutcome, WorkerView

_log = logging.getLogger(__name__)
# Who has found none by then can do so later; the gateway starts without.
_FIRST_LOOK_S = 5.0


class Fleet:
    """The workers that ``finders`` find; each is asked for its status every ``poll_s`` seconds."""

    def __init__(self, finders: Sequence[Finder], *, poll_s: float, stall_s: float, tls: ChannelTls | None = None) -> None:
        """``tls``: of the connections to workers; None: without."""
        self._finders = finders
        self._tls = tls
        self._poll_s = poll_s
        self._stall_s = stall_s
        self._found: list[Sequence[Endpoint]] = [()] * len(finders)
        self._members: dict[str, Member] = {}
        self._listeners: list[Callable[[], None]] = []
        self._finding: list[asyncio.Task[None]] = []
        self._leaving: dict[asyncio.Task[None], Member] = {}

    async def start(self) -> None:
        """Begin to look; returns when each worker that is found at once was asked once.

        Raises:
            SettingsError: a finder can't work like this, or a file of TLS can't be used.
        """
        if self._tls is not None:
            channel_credentials(self._tls)
        looked = [asyncio.Event() for _ in self._finders]
        for number, finder in enumerate(self._finders):
            self._finding.append(asyncio.create_task(self._find(number, finder, looked[number])))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_S):
                await asyncio.gather(*(event.wait() for event in looked))
        for finding in self._finding:
            if finding.done():
                finding.result()
        await asyncio.gather(*(member.ask() for member in self._members.values()))

    async def aclose(self) -> None:
        """End all conversations."""
        members = [*self._members.values(), *self._leaving.values()]
        tasks = [*self._finding, *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(member.aclose() for member in members))

    def views(self) -> list[WorkerView]:
        """See :class:`Workers`."""
        return [member.view for member in self._members.values()]

    def pools(self) -> frozenset[str]:
        """Pools that a finder knows by name, with workers or without."""
        return frozenset().union(*(finder.pools() for finder in self._finders))

    def on_change(self, listener: Callable[[], None]) -> None:
        """See :class:`Workers`."""
        self._listeners.append(listener)

    def suspect(self, address: str) -> None:
        """See :class:`Workers`."""
        if address in self._members:
            self._members[address].suspect()

    async def restore(
        self, address: str, task: SpanTask, packets: AsyncIterable[Packet], on_segment: OnSegment, on_stage: OnStage
    ) -> SpanOutcome:
        """See :class:`Workers`."""
        if address not in self._members:
            raise WorkerUnavailable(f"The worker at {address} is gone.")
        return await self._members[address].restore(task, packets, on_segment, on_stage)

    async def _find(self, number: int, finder: Finder, looked: asyncio.Event) -> None:
        def show(endpoints: Sequence[Endpoint]) -> None:
            self._found[number] = endpoints
            self._gather()
            looked.set()

        try:
            await finder.run(show)
        except SettingsError as error:
            _log.error("workers can't be found: %s", error.message)
            raise
        except Exception:
            _log.exception("a finder of workers ended; nobody else is found until the next start")
            raise
        finally:
            looked.set()

    def _gather(self) -> None:
        """Let members come, change and go."""
        found = joined(self._found)
        for address, member in list(self._members.items()):
            if address not in found or not member.is_at(found[address]):
                self._part_with(address, member)
        for address, endpoint in found.items():
            if address in self._members:
                self._members[address].update(endpoint)
            else:
                self._members[address] = Member(
                    endpoint, poll_s=self._poll_s, stall_s=self._stall_s, on_change=self._changed, tls=self._tls,
                )  # fmt: skip
                _log.info("worker found", extra={"worker": address, "pool": endpoint.pool})
        self._tell()

    def _part_with(self, address: str, member: Member) -> None:
        del self._members[address]
        leaving = asyncio.create_task(member.leave())
        self._leaving[leaving] = member
        leaving.add_done_callback(self._leaving.pop)
        _log.info("worker left", extra={"worker": address, "pool": member.view.pool})

    def _changed(self, before: WorkerView, now: WorkerView) -> None:
        if now.state != before.state:
            _log.info("worker is %s", now.state, extra={"worker": now.address, "detail": now.detail})
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
