"""One service of this machine as a process: start it, know its address, start it again when it dies, stop it in order."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.errors import SettingsError, Unavailable

_START_S, _POLL_S = 90.0, 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STEADY_S = 0.5, 30.0, 60.0
_SETTINGS_EXIT_CODE = 2
_LOG_BYTES = 10 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """What to start and where."""

    name: str
    """For people, and of its log file."""

    module: str
    """Run with ``python -m``."""

    prefix: str
    """Of its settings in the environment, for example SEEDVR2_UI."""

    address: str
    """host:port to listen on; port 0 takes a free one, which is then kept over restarts."""

    settings: Mapping[str, str]
    """Other settings, by field name."""

    directory: Path
    """For its log and its ready file; must exist."""


class ServiceProcess:
    """A running service. ``tell`` gets a sentence when it died and is started again."""

    def __init__(self, spec: ServiceSpec, tell: Callable[[str], None]) -> None:
        self._spec = spec
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.address = spec.address
        """Where it listens, once started."""
        self.ready: dict[str, str] = {}
        """All its addresses by name, once started."""
        self.log = spec.directory / f"{spec.name}.log"
        """What it writes."""

    @property
    def pid(self) -> int:
        """Process id of the one that runs now."""
        if self._process is None:
            raise Unavailable(f"The {self._spec.name} service is not running.")
        return self._process.pid

    async def start(self) -> None:
        """Start it and return when it listens.

        Raises:
            SettingsError: it can't start like this, for example because its port is taken.
            Unavailable: it ended, or doesn't listen in time.
        """
        await self._start_once()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, wait for ``grace_s`` at most, then end it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._process is None or self._process.returncode is not None:
            return
        try:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            self._tell(f"The {self._spec.name} service doesn't end; it is killed.")
        finally:
            self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """End it now."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _keep(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            code = await self._running().wait()
            pause_s = _FIRST_PAUSE_S if time.monotonic() - started > _STEADY_S else pause_s
            self._tell(f"The {self._spec.name} service ended ({_how(code)}); it is started again in {pause_s:g} s.")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                await self._start_once()
            except (SettingsError, Unavailable) as error:
                self._tell(error.message)

    async def _start_once(self) -> None:
        ready_file = self._spec.directory / f"{self._spec.name}.ready.json"
        ready_file.unlink(missing_ok=True)
        log_bytes = self._rotate_log()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.cli.tied", str(os.getpid()), self._spec.module,
                env=self._environment(ready_file), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                # Ctrl-C on a terminal reaches the whole group; these are stopped in order instead.
                start_new_session=True,
            )  # fmt: skip
        try:
            await asyncio.wait_for(self._listening(ready_file, log_bytes), _START_S)
        except TimeoutError as error:
            self.kill()
            raise Unavailable(f"The {self._spec.name} service doesn't start; its log is {self.log}.") from error

    async def _listening(self, ready_file: Path, log_bytes: int) -> None:
        process = self._running()
        ending = asyncio.create_task(process.wait())
        try:
            while not (ready := _read_ready(ready_file)):
                done, _ = await asyncio.wait([ending], timeout=_POLL_S)
                if done:
                    raise self._start_error(ending.result(), log_bytes)
        finally:
            ending.cancel()
        self.ready = {name: str(value) for name, value in ready.items()}
        self.address = self.ready["address"]

    def _start_error(self, code: int, log_bytes: int) -> SettingsError | Unavailable:
        last = _last_sentence(self.log, log_bytes)
        if code == _SETTINGS_EXIT_CODE and last:
            return SettingsError(f"The {self._spec.name} service can't start: {last}")
        return Unavailable(f"The {self._spec.name} service ended as it started ({_how(code)}); its log is {self.log}.")

    def _environment(self, ready_file: Path) -> dict[str, str]:
        values = {**self._spec.settings, "address": self.address, "ready_file": str(ready_file.absolute())}
        return dict(os.environ) | {f"{self._spec.prefix}_{name}".upper(): value for name, value in values.items()}

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise Unavailable(f"The {self._spec.name} service is not running.")
        return self._process

    def _rotate_log(self) -> int:
        """Bytes in the log now; a long one makes room."""
        size = self.log.stat().st_size if self.log.exists() else 0
        if size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
            return 0
        return size


def _read_ready(ready_file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(ready_file.read_bytes()))
    except FileNotFoundError:
        return {}


def _last_sentence(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return ""
    try:
        return str(json.loads(lines[-1])["message"])
    except (ValueError, KeyError, TypeError):
        return lines[-1]


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
