"""Real service processes for tests: started on free ports, stopped or killed at the end."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from services.common.settings import as_environment
from services.gateway.store.s3.settings import PREFIX as S3_PREFIX
from services.gateway.store.s3.settings import S3Settings

_START_S, _STOP_S, _POLL_S = 90.0, 20.0, 0.02


class Process:
    """A service of its own process."""

    def __init__(
        self, module: str, prefix: str, directory: Path, environment: Mapping[str, str] | None = None, **settings: Any
    ) -> None:
        """``settings`` are fields of its settings class; ``environment`` is what it reads beside them."""
        self._environment = dict(environment or {})
        self.module = module
        """What is run."""
        self._prefix = prefix
        self._directory = directory
        self._settings = {"address": "127.0.0.1:0", **settings}
        self._process: asyncio.subprocess.Process | None = None
        self.ready: dict[str, Any] = {}

    @property
    def address(self) -> str:
        """host:port, once started."""
        return str(self.ready["address"])

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return self._directory

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self._directory / "log").read_text()

    async def start(self, *, ready: bool = True) -> "Process":
        """Start it; ``ready``: and wait until it says where it listens."""
        self._directory.mkdir(parents=True, exist_ok=True)
        ready_file = self._directory / "ready.json"
        ready_file.unlink(missing_ok=True)
        values = {**self._settings, "ready_file": ready_file}
        environment = {f"{self._prefix}_{name}".upper(): str(value) for name, value in values.items()}
        with (self._directory / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self.module, stdout=log, stderr=log, env=os.environ | self._environment | environment
            )
        if ready:
            async with asyncio.timeout(_START_S):
                while not ready_file.exists():
                    assert self._process.returncode is None, self.log
                    await asyncio.sleep(_POLL_S)
            self.ready = json.loads(ready_file.read_text())
            # The same address after a restart, as a Service or a list of workers would have it.
            self._settings["address"] = self.address
        return self

    async def wait(self) -> int:
        """Its exit code."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), _STOP_S)

    async def kill(self) -> None:
        """kill -9."""
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await self.wait()

    async def restart(self, **settings: Any) -> None:
        """Start it again where it was, with some settings changed."""
        self._settings |= settings
        await self.start()


@contextlib.asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    """Start some; whatever happens, none is left."""
    try:
        for process in processes:
            await process.start()
        yield
    finally:
        for process in processes:
            if process.alive:
                await process.kill()


def gateway(directory: Path, *workers: Process | str, s3: S3Settings | None = None, **settings: Any) -> Process:
    """A gateway with its store in ``directory``, or in a bucket; workers must run before it starts."""
    environment = as_environment(s3, S3_PREFIX) if s3 else {}
    addresses = ",".join(w if isinstance(w, str) else w.address for w in workers)
    fixed = {"workers": addresses, "store_directory": directory / "store", "metrics_address": "", "rest_address": ""}
    quick = {"worker_poll_s": 0.2, "adopt_s": 0.5, "segment_frames": 8}
    return Process("services.gateway", "SEEDVR2_GATEWAY", directory, environment, **{**fixed, **quick, **settings})


def echo_worker(directory: Path, **settings: Any) -> Process:
    """An echo worker."""
    return Process("tests.integration.echo_worker", "SEEDVR2_ECHO", directory, **settings)
