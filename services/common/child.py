"""A module of this project in a process of its own, with limits on memory and CPU time.

Hostile bytes are read in such a process: if a demuxer or decoder goes wrong, it alone is lost, and its end becomes a clear
error. A child module ends with::

    if __name__ == "__main__":
        run_child(main)          # main(channel: Channel) -> None

and its parent uses ``async with Child.start("services.x.y", limits=…) as child: await child.send(…); await child.receive()``.
A ServiceError that ``main`` raises arrives at the parent's ``receive`` as the same class.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from services.common.channel import AsyncChannel, Buffer, Channel, ChannelClosed, Message, channel_pair
from services.common.errors import InternalError, ServiceError, all_errors
from services.common.logs import setup_logging

_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may use before the kernel stops it. None: no limit."""

    memory_bytes: int | None = None
    """Address space."""

    cpu_s: int | None = None
    """CPU time of all its threads."""


class ChildDied(Exception):
    """A child ended without saying why; the text says how (signal, memory, CPU time)."""

    def __init__(self, how: str, signal_number: int = 0) -> None:
        super().__init__(how)
        self.signal_number = signal_number
        """What ended it; 0: it ended by itself."""


class Child:
    """The parent's view of a child."""

    def __init__(self, process: asyncio.subprocess.Process, channel: AsyncChannel, limits: Limits) -> None:
        self._process = process
        self._channel = channel
        self._limits = limits

    @classmethod
    async def start(
        cls,
        module: str,
        *,
        limits: Limits | None = None,
        environment: dict[str, str] | None = None,
        arguments: Sequence[str] = (),
        handed: Sequence[socket.socket] = (),
    ) -> Self:
        """Start ``python -m module``. Secrets of the parent's environment are not handed on; ``environment`` adds to it.

        The child has the sockets in ``handed`` from :func:`handed_sockets`; the parent's own ends of them stay open.
        """
        limits = limits or Limits()
        ours, theirs = channel_pair()
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, _numbers(theirs, *handed), str(os.getpid()), json.dumps(asdict(limits)), *arguments,
                pass_fds=tuple(end.fileno() for end in (theirs, *handed)), stdin=asyncio.subprocess.DEVNULL,
                env=kept | (environment or {}),
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            return cls(process, await AsyncChannel.over(ours), limits)
        except asyncio.CancelledError:
            # Nobody else knows the process yet.
            process.kill()
            await asyncio.shield(process.wait())
            raise

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def send(self, kind: str, payload: Buffer = b"", **fields: Any) -> None:
        """Send one message.

        Raises:
            ChildDied: the child is gone.
        """
        try:
            await self._channel.send(kind, payload, **fields)
        except ChannelClosed as error:
            raise await self._death() from error

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            ServiceError: the child raised it.
            ChildDied: the child ended without a word.
        """
        try:
            message = await self._channel.receive()
        except ChannelClosed as error:
            raise await self._death() from error
        if message.kind == "error":
            raise error_from_fields(message.fields)
        return message

    def kill(self) -> None:
        """End the child now."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        """Wait for the child's end; returns its exit code."""
        return await self._process.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.kill()
        ending, cancelled = asyncio.ensure_future(self._end()), None
        # However often this is cancelled: the process ends first.
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError as reason:
                cancelled = reason
        if cancelled is not None:
            raise cancelled

    async def _end(self) -> None:
        await self._process.wait()
        await self._channel.aclose()

    async def _death(self) -> ChildDied:
        try:
            code = await asyncio.wait_for(self._process.wait(), timeout=5)
        except TimeoutError:
            return ChildDied("it closed its channel and went on")
        if code == -signal.SIGXCPU or (code == -signal.SIGKILL and self._limits.cpu_s):
            return ChildDied(f"it was stopped by the kernel, perhaps after its {self._limits.cpu_s} s of CPU time", -code)
        if code < 0:
            return ChildDied(f"it was ended by {signal.Signals(-code).name}", -code)
        return ChildDied(f"it exited with code {code}")


def error_from_fields(fields: dict[str, Any]) -> ServiceError:
    """The error that :func:`error_fields` described; an unknown class becomes InternalError."""
    cls = all_errors().get(str(fields.get("reason")), InternalError)
    return cls(str(fields.get("message", "")), field=str(fields.get("field", "")), retry_after_s=fields.get("retry_after_s"))


def error_fields(error: ServiceError) -> dict[str, Any]:
    """The fields of a message of kind "error"."""
    return {"reason": type(error).__name__, "message": error.message, "field": error.field, "retry_after_s": error.retry_after_s}


def run_child(main: Callable[[Channel], None]) -> None:
    """The child's side: apply the limits, run ``main`` on the channel, report its error, exit.

    The ``arguments`` of :meth:`Child.start` begin at ``sys.argv[4]``.
    """
    setup_logging(os.environ.get("SEEDVR2_SERVICE", "child"))
    parent, limits = int(sys.argv[2]), Limits(**json.loads(sys.argv[3]))
    _die_with_parent(parent)
    _apply(limits)
    channel = Channel(socket.socket(fileno=_handed()[0]))
    try:
        main(channel)
    except ChannelClosed:
        sys.exit(0)
    except MemoryError:
        _report(channel, InternalError("It needs more memory than a helper process may have."))
    except ServiceError as error:
        _report(channel, error)


def handed_sockets() -> list[socket.socket]:
    """The child's side: what was handed to it, in that order. To be called once."""
    return [socket.socket(fileno=number) for number in _handed()[1:]]


def _numbers(*ends: socket.socket) -> str:
    return ",".join(str(end.fileno()) for end in ends)


def _handed() -> list[int]:
    """Numbers of the channel's socket and of those that were handed on."""
    return [int(number) for number in sys.argv[1].split(",")]


def _report(channel: Channel, error: ServiceError) -> None:
    with contextlib.suppress(ChannelClosed):
        channel.send("error", **error_fields(error))
    sys.exit(1)


def _apply(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    if limits.cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))


def _die_with_parent(parent: int) -> None:
    # The parent may be killed with -9 and then can't end its children itself.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)
