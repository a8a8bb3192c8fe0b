"""The server's side of the process that decodes and encodes one span. Imports no PyAV."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from services.common.channel import Message
from services.common.child import Child, ChildDied, Limits
from services.common.encoders import HARDWARE_ENCODERS
from services.common.errors import InternalError, InvalidVideo, ServiceError, SettingsError, WorkerBroken
from services.common.logs import log_ids
from services.common.media import Packet, SpanTask
from services.common.plan import Segment
from services.inference.messages import SegmentReady, StageTime, VideoDone, VideoOrder, packet_fields, stage_of

VIDEO_MODULE = "services.inference.video.child"
_log = logging.getLogger(__name__)
_OPENING_S = 60.0
# sockaddr_un has room for 108 bytes.
_MAX_PATH_BYTES = 100


class FramesLost(Exception):
    """The process ended because the rank closed its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """What one process may use."""

    memory_bytes: int
    """Address space."""

    cpu_s: int
    """CPU time."""

    encoder_threads: int
    """CPU threads of an encoder."""

    nvenc_memory_bytes: int = 0
    """Address space of one that encodes with a card's encoder; 0: the same as of others."""


class VideoProcesses:
    """Starts one process for each span."""

    def __init__(self, directory: Path, limits: VideoLimits, module: str = VIDEO_MODULE) -> None:
        """``directory``: private to this server; sockets are made in it. ``module`` is what each process runs.

        Raises:
            SettingsError: its path is too long for sockets.
        """
        if len(str(directory).encode()) > _MAX_PATH_BYTES - len("/span-0000000000"):
            raise SettingsError(f"{directory} is too long a path for a socket; set TMPDIR to a shorter one.")
        self._directory = directory
        self._limits = limits
        self._module = module
        self._count = 0

    async def facts(self) -> dict[str, str]:
        """Which encoder there is.

        Raises:
            InternalError: a process can't be started, or can't encode.
        """
        async with await self._start() as child:
            try:
                await child.send("facts")
                found: dict[str, str] = (await child.receive()).fields["facts"]
            except ChildDied as error:
                raise InternalError(f"A process that encodes can't be started: {error}.") from error
        return found | {"encoder_threads": str(self._limits.encoder_threads)}

    async def encoders(self) -> tuple[str, ...]:
        """Encoders of graphics cards that open here, by FFmpeg's names; none where trying ends the process, as drivers can."""
        try:
            async with asyncio.timeout(_OPENING_S), await self._start(hardware=True) as child:
                await child.send("encoders")
                return tuple((await child.receive()).fields["encoders"])
        except (ChildDied, ServiceError, TimeoutError) as error:
            _log.warning("encoders of graphics cards can't be tried", extra={"detail": str(error)})
            return ()

    @contextlib.asynccontextmanager
    async def open(self, task: SpanTask) -> AsyncIterator["VideoProcess"]:
        """A process that listens for the rank; it ends with the block.

        Raises:
            ServiceError: it can't decode this, or can't be started.
        """
        self._count += 1
        path = self._directory / f"span-{self._count}"
        try:
            async with await self._start(hardware=task.plan.encoder in HARDWARE_ENCODERS) as child:
                process = VideoProcess(child, path)
                await process.begin(
                    VideoOrder(task=task, path=str(path), encoder_threads=self._limits.encoder_threads, ids=log_ids())
                )
                yield process
        finally:
            path.unlink(missing_ok=True)

    async def _start(self, *, hardware: bool = False) -> Child:
        memory_bytes = (hardware and self._limits.nvenc_memory_bytes) or self._limits.memory_bytes
        limits = Limits(memory_bytes=memory_bytes, cpu_s=self._limits.cpu_s)
        # One thread for arithmetic libraries: each reserves address space.
        environment = {"SEEDVR2_SERVICE": "inference-video", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if hardware and "CUDA_VISIBLE_DEVICES" in os.environ:
            environment["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]
        try:
            return await Child.start(self._module, limits=limits, environment=environment)
        except OSError as error:
            raise WorkerBroken(f"A process that decodes and encodes can't be started: {error.strerror}.") from error


class VideoProcess:
    """Decodes and encodes one span."""

    def __init__(self, child: Child, path: Path) -> None:
        self._child = child
        self.path = path
        """Socket on which it listens for the rank."""

    async def begin(self, order: VideoOrder) -> None:
        """Send the order and wait until it listens. Raises ServiceError."""
        try:
            await self._child.send("span", **order.fields())
            await self._child.receive()
        except ChildDied as error:
            raise WorkerBroken(f"A process that decodes and encodes can't be started: {error}.") from error

    async def put(self, packet: Packet) -> bool:
        """Give it a packet, when it has room; False when it takes no more, which :meth:`events` explains."""
        return await self._send("packet", packet.data, **packet_fields(packet))

    async def end(self) -> None:
        """No more packets."""
        await self._send("end")

    async def events(self) -> AsyncIterator[StageTime | SegmentReady | VideoDone]:
        """What it says, to its end.

        Raises:
            InvalidVideo: this can't be decoded.
            WorkerBroken: it was killed.
            FramesLost: the rank is gone.
            ServiceError: what else went wrong in it.
        """
        while True:
            message = await self._receive()
            if message.kind == "progress":
                yield stage_of(message.fields)
            elif message.kind == "segment":
                segment = Segment(first=message.fields["first"], end=message.fields["end"])
                yield SegmentReady(segment=segment, data=bytes(message.payload))
            elif message.kind == "lost":
                raise FramesLost
            else:
                yield VideoDone(concealed_frames=message.fields["concealed_frames"])
                return

    def kill(self) -> None:
        """End it now; the rank that reads its frames sees the end of them."""
        self._child.kill()

    async def _send(self, kind: str, payload: bytes = b"", **fields: object) -> bool:
        try:
            await self._child.send(kind, payload, **fields)
        except ChildDied:
            return False
        return True

    async def _receive(self) -> Message:
        try:
            return await self._child.receive()
        except ChildDied as error:
            raise await self._died(error) from error

    async def _died(self, error: ChildDied) -> ServiceError:
        # Nothing that a decoder does to itself looks like this; memory that the machine ran out of does.
        if await self._child.wait() == -signal.SIGKILL:
            return WorkerBroken("The process that decodes and encodes was killed; perhaps the machine has no memory left.")
        return InvalidVideo(f"The video can't be decoded: the decoder failed ({error}). It is damaged, or too large for it.")
