"""All services on this machine: the same processes, wire and code path as in a cluster, with a directory as artifact store."""

import asyncio
import contextlib
import fcntl
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.cli.connection import own_client
from services.cli.service import ServiceProcess, ServiceSpec
from services.common.errors import SettingsError, Unauthenticated, Unavailable, WorkerUnavailable

_POOL = "local"
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What to start. Port 0 takes a free one."""

    data_directory: Path
    """Uploads, jobs, results and logs; made where it doesn't exist."""

    host: str = "127.0.0.1"
    """Where gateway and page listen; the worker listens on loopback."""

    gateway_port: int = 0
    """gRPC, for programs and the command line."""

    rest_port: int | None = None
    """HTTP, for programs that speak no gRPC; None: off."""

    worker_port: int = 0
    """gRPC, for the gateway."""

    page_port: int | None = None
    """HTTP; None starts no page."""

    metrics_port: int | None = None
    """Metrics of the gateway, those of the worker on the next one; None: off."""

    model: str = ""
    """What the worker serves; empty: its default."""

    model_directory: str = ""
    """Where the worker looks for models that were fetched; empty: its default."""

    ready_s: float = 300.0
    """How long a worker may take to load its model and pass its self-test."""

    drain_s: float = 15.0
    """How long each service may take to end."""


class LocalStack:
    """Started when the block is entered, stopped in order when it is left; nothing outlives this process."""

    def __init__(self, options: StackOptions, tell: Callable[[str], None]) -> None:
        self._options = options
        self._tell = tell
        self._services: list[ServiceProcess] = []
        self._lock = contextlib.ExitStack()
        self.gateway_address = ""
        """host:port, for clients on this machine."""
        self.rest_address = ""
        """host:port of the HTTP API; empty without it."""
        self.page_address = ""
        """host:port; empty without a page."""

    @property
    def log_directory(self) -> Path:
        """Where the services write."""
        return self._options.data_directory / "logs"

    async def __aenter__(self) -> Self:
        """Start every service and wait until a worker is ready.

        Raises:
            SettingsError: a service can't start like this (a port is taken, the directory is in use or can't be written).
            Unavailable: a service ended or doesn't get ready in time.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        self._lock.enter_context(_locked(self._options.data_directory, self.log_directory))
        worker = await self._run(self._worker_spec())
        gateway = await self._run(self._gateway_spec(worker.address))
        self.gateway_address = _reachable(gateway.address)
        self.rest_address = _reachable(gateway.ready.get("rest_address", ""))
        if self._options.page_port is not None:
            page = await self._run(self._page_spec(self._options.page_port))
            self.page_address = _reachable(page.address)
        await self._wait_for_worker()

    async def _run(self, spec: ServiceSpec) -> ServiceProcess:
        service = ServiceProcess(spec, self._tell)
        self._services.append(service)
        await service.start()
        return service

    async def _stop(self) -> None:
        try:
            for service in reversed(self._services):
                await service.stop(self._options.drain_s)
        finally:
            for service in self._services:
                service.kill()
            self._lock.close()

    async def _wait_for_worker(self) -> None:
        detail = ""
        try:
            async with asyncio.timeout(self._options.ready_s), own_client(self.gateway_address) as client:
                while True:
                    workers = (await client.cluster_status()).workers
                    if any(worker.state in ("ready", "busy") for worker in workers):
                        return
                    detail = next((f": {worker.detail}" for worker in workers if worker.detail), "")
                    await asyncio.sleep(_POLL_S)
        except Unauthenticated:
            # It is there, and tells how its worker is to those alone who have a token.
            return
        except TimeoutError as error:
            raise WorkerUnavailable(f"The worker isn't ready{detail}; its log is {self._services[0].log}.") from error

    def _worker_spec(self) -> ServiceSpec:
        named = {"model": self._options.model, "model_directory": self._options.model_directory}
        model = {name: value for name, value in named.items() if value}
        return ServiceSpec(
            name="inference",
            module="services.inference",
            prefix="SEEDVR2_INFERENCE",
            address=f"127.0.0.1:{self._options.worker_port}",
            settings={"pool": _POOL, "metrics_address": self._metrics_address(1), "drain_s": self._service_drain_s(), **model},
            directory=self.log_directory,
        )

    def _gateway_spec(self, worker_address: str) -> ServiceSpec:
        return ServiceSpec(
            name="gateway",
            module="services.gateway",
            prefix="SEEDVR2_GATEWAY",
            address=f"{self._options.host}:{self._options.gateway_port}",
            settings={
                "workers": f"{_POOL}={worker_address}",
                # On somebody's own machine no video and no result goes that they didn't remove.
                "keep_jobs_s": "0",
                "keep_uploads_s": "0",
                "store_directory": str(self._options.data_directory.absolute() / "store"),
                "rest_address": "" if self._options.rest_port is None else f"{self._options.host}:{self._options.rest_port}",
                "metrics_address": self._metrics_address(0),
                "drain_s": self._service_drain_s(),
            },
            directory=self.log_directory,
        )

    def _page_spec(self, port: int) -> ServiceSpec:
        return ServiceSpec(
            name="ui",
            module="services.ui",
            prefix="SEEDVR2_UI",
            address=f"{self._options.host}:{port}",
            settings={"gateway_address": self.gateway_address, "drain_s": self._service_drain_s()},
            directory=self.log_directory,
        )

    def _service_drain_s(self) -> str:
        # Each service ends what it can in order before its process would be killed.
        return str(self._options.drain_s / 2)

    def _metrics_address(self, number: int) -> str:
        port = self._options.metrics_port
        return "" if port is None else f"{self._options.host}:{port + number}"


def _reachable(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not port:
        return ""
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "") else address  # noqa: S104 - compared, not listened on


@contextlib.contextmanager
def _locked(directory: Path, logs: Path) -> Iterator[None]:
    """Gateways can share a store; a data directory with its logs and its services belongs to one command at a time."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise SettingsError(f"Can't use {directory} as data directory: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Unavailable(f"Another seedvr2 is using {directory}; choose another data directory.") from error
        yield
