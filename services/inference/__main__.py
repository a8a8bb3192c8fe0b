"""``python -m services.inference``: one worker."""

import asyncio
import logging
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector

from services.common import tracing
from services.common.errors import ServiceError, SettingsError
from services.common.logs import setup_logging
from services.common.metrics import InferenceMetrics, serve_metrics
from services.common.otlp import PREFIX as TRACING_PREFIX
from services.common.otlp import TracingSettings, open_recorder
from services.common.ready import tell_ready, with_port
from services.common.rpc.server import Server, wait_for_signal
from services.common.rpc.tls import channel_tls, server_tls
from services.common.settings import read_settings
from services.inference.engine import Engine
from services.inference.gpu_metrics import GpuMetrics
from services.inference.groups import Groups, choose_layout, load_orders
from services.inference.hosts.addresses import HostAddresses, host_addresses
from services.inference.hosts.remote import RemoteHost
from services.inference.machines import Machines
from services.inference.model_files import named_directory
from services.inference.models import find_model
from services.inference.ranks import RankLimits
from services.inference.servicer import SERVICE_NAME, register
from services.inference.settings import InferenceSettings
from services.inference.shelf import Shelf
from services.inference.video.process import VideoLimits, VideoProcesses

_log = logging.getLogger(__name__)
# For calls to take the rest of their answers.
_FLUSH_S = 10.0


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    try:
        settings = read_settings(InferenceSettings, "SEEDVR2_INFERENCE", os.environ)
        setup_logging("inference", settings.log_level)
        recorder = open_recorder(
            read_settings(TracingSettings, TRACING_PREFIX, os.environ), "inference", metadata.version("seedvr2")
        )
        with tracing.start_recording(recorder), tempfile.TemporaryDirectory(prefix="seedvr2-") as private:
            asyncio.run(_serve(settings, Path(private)))
    except ServiceError as error:
        print(error.message, file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    return 0


async def _serve(settings: InferenceSettings, private: Path) -> None:
    stop = asyncio.create_task(wait_for_signal())
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(GpuMetrics(settings.pool))
    engine = _engine(settings, private, InferenceMetrics(registry))
    tls = server_tls(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    server = Server(settings.address, tls=tls, health_address=settings.health_address)
    shelf = Shelf(named_directory(settings.model_directory))
    server.add(SERVICE_NAME, lambda grpc_server: register(engine, shelf, grpc_server))
    try:
        port = await server.start()
        metrics_port = serve_metrics(settings.metrics_address, registry) if settings.metrics_address else None
        await engine.start()
        tell_ready(
            settings.ready_file,
            address=with_port(settings.address, port),
            metrics_address=with_port(settings.metrics_address, metrics_port),
        )
        health = asyncio.create_task(_follow_health(engine, server))
        _log.info("stopping", extra={"signal": (await stop).name})
        await engine.drain(settings.drain_s)
        health.cancel()
    finally:
        await server.stop(_FLUSH_S)
        await engine.close()
    _log.info("stopped")


async def _follow_health(engine: Engine, server: Server) -> None:
    """Let the health service answer what the engine says, until this is cancelled."""
    while True:
        await server.set_serving(engine.serving)
        await engine.wait_change()


def _engine(settings: InferenceSettings, private: Path, metrics: InferenceMetrics) -> Engine:
    files = find_model(settings.model, settings.model_directory)
    addresses = host_addresses(settings.rank_hosts, settings.meeting_address, os.environ)
    orders = load_orders(
        model=files.name, directory=files.directory, sha256=files.sha256, device=settings.device, dtype=settings.dtype,
        layout=choose_layout(
            device=settings.device, ranks=settings.ranks, sequence=settings.sequence, machines=addresses.machines
        ),
        threads=settings.torch_threads,
    )  # fmt: skip
    limits = VideoLimits(
        memory_bytes=settings.video_memory_bytes, cpu_s=settings.video_cpu_s, encoder_threads=settings.encoder_threads,
        nvenc_memory_bytes=settings.nvenc_memory_bytes,
    )  # fmt: skip
    return Engine(
        model=files.name, pool=settings.pool,
        groups=Groups(
            orders, RankLimits(start_s=settings.rank_start_s, stop_s=settings.rank_stop_s), metrics,
            _machines(settings, addresses, private),
        ),
        videos=VideoProcesses(private, limits), queue_spans=settings.queue_spans, metrics=metrics,
        queue_s=settings.queue_s or None,
    )  # fmt: skip


def _machines(settings: InferenceSettings, addresses: HostAddresses, private: Path) -> Machines:
    tls = channel_tls(
        settings.rank_hosts_ca_file, settings.tls_certificate_file, settings.tls_key_file, settings.rank_hosts_server_name
    )
    hosts = [RemoteHost(address, tls) for address in addresses.hosts]
    return Machines(private, hosts=hosts, address=addresses.meeting)


if __name__ == "__main__":
    sys.exit(main())
