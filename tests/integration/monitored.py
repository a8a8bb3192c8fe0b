"""All services, and a real Prometheus that scrapes them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.nvml import build
from tests.integration.processes import Process, gateway, running
from tests.integration.prometheus import Monitoring, monitoring


@dataclass(frozen=True)
class Monitored:
    """Services, and what scrapes them."""

    prometheus: Monitoring
    workers: list[Process]
    gateway: Process


@asynccontextmanager
async def monitored(directory: Path, rules: Path, workers: int = 1) -> AsyncIterator[Monitored]:
    """A gateway, the page, and workers with the embedded model beside a GPU that only NVIDIA's library knows of."""
    (directory / "libraries").mkdir()
    build(directory / "libraries")
    environment = {"LD_LIBRARY_PATH": str(directory / "libraries")}
    fleet = [
        Process(
            "services.inference", "SEEDVR2_INFERENCE", directory / f"w{number}", environment,
            metrics_address="127.0.0.1:0", torch_threads=1, device="cpu", ranks=1, pool="nano",
        )
        for number in range(workers)
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(*fleet))
        front = gateway(directory / "gateway", *fleet, metrics_address="127.0.0.1:0")
        await stack.enter_async_context(running(front))
        page = Process("services.ui", "SEEDVR2_UI", directory / "ui", gateway_address=front.address)
        await stack.enter_async_context(running(page))
        targets = {worker.directory.name: worker.ready["metrics_address"] for worker in fleet}
        targets |= {"g": front.ready["metrics_address"], "ui": page.address}
        prometheus = await stack.enter_async_context(monitoring(directory / "prometheus", targets, rules))
        await prometheus.until("seedvr2_ready == 1", 120)
        # What moves before the first look at it doesn't show.
        await prometheus.until(f"count(up == 1) == {len(targets)}", 60)
        yield Monitored(prometheus=prometheus, workers=fleet, gateway=front)
