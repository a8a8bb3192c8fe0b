"""``python -m services.inference.hosts``: a rank host, which runs ranks for a worker on another machine."""

import asyncio
import logging
import os
import sys

from prometheus_client import CollectorRegistry, ProcessCollector

from services.common.errors import ServiceError, SettingsError
from services.common.logs import setup_logging
from services.common.metrics import RankHostMetrics, serve_metrics
from services.common.ready import tell_ready, with_port
from services.common.rpc.server import Server, wait_for_signal
from services.common.rpc.tls import server_tls
from services.common.settings import read_settings
from services.inference.gpu_metrics import GpuMetrics
from services.inference.hosts.servicer import SERVICE_NAME, RankHostServicer, register
from services.inference.hosts.settings import PREFIX, RankHostSettings

_log = logging.getLogger(__name__)
# For the call to take the rest of its answers.
_FLUSH_S = 5.0


def main() -> int:
    """Run until SIGTERM or SIGINT; the exit status."""
    try:
        settings = read_settings(RankHostSettings, PREFIX, os.environ)
        setup_logging("rank-host", settings.log_level)
        asyncio.run(_serve(settings))
    except ServiceError as error:
        print(error.message, file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    return 0


async def _serve(settings: RankHostSettings) -> None:
    stop = asyncio.create_task(wait_for_signal())
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(GpuMetrics(settings.pool))
    servicer = RankHostServicer(RankHostMetrics(registry))
    tls = server_tls(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    server = Server(settings.address, tls=tls, health_address=settings.health_address)
    server.add(SERVICE_NAME, lambda grpc_server: register(servicer, grpc_server))
    try:
        port = await server.start()
        metrics_port = serve_metrics(settings.metrics_address, registry) if settings.metrics_address else None
        await server.set_serving(True)
        tell_ready(
            settings.ready_file,
            address=with_port(settings.address, port),
            metrics_address=with_port(settings.metrics_address, metrics_port),
        )
        _log.info("stopping", extra={"signal": (await stop).name})
        await server.set_serving(False)
        await servicer.drain(settings.drain_s)
    finally:
        await server.stop(_FLUSH_S)
    _log.info("stopped")


if __name__ == "__main__":
    sys.exit(main())
