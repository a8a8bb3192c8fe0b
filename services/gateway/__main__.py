"""Start the gateway: ``python -m services.gateway``."""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common.errors import SettingsError
from services.common.logs import setup_logging
from services.common.metrics import GatewayMetrics, serve_metrics
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.ready import tell_ready, with_port
from services.common.rpc.server import Server, wait_for_signal
from services.common.rpc.tls import channel_tls, server_tls
from services.common.settings import read_settings
from services.gateway.container.adapter import Container
from services.gateway.fleet.endpoints import Listed, parse_workers
from services.gateway.fleet.workers import Fleet
from services.gateway.leases.files import FileLeases
from services.gateway.service import GatewayService, container_limits
from services.gateway.settings import GatewaySettings
from services.gateway.store.local import LocalStore

_NAME = "seedvr2.v1.Gateway"


async def serve(settings: GatewaySettings, directory: Path) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingsError."""
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    stall_s = settings.span_stall_s + settings.worker_poll_s
    tls = channel_tls(
        settings.worker_ca_file, settings.worker_certificate_file, settings.worker_key_file, settings.worker_tls_name
    )
    workers = Fleet([Listed(parse_workers(settings.workers))], poll_s=settings.worker_poll_s, stall_s=stall_s, tls=tls)
    with contextlib.closing(LocalStore(directory, min_free_bytes=settings.store_min_free_bytes)) as store:
        service = GatewayService(
            settings=settings, store=store, workers=workers, container=Container(container_limits(settings)),
            leases=FileLeases(directory / ".leases"), metrics=metrics,
        )  # fmt: skip
        server = Server(
            settings.address, tls=server_tls(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file),
            health_address=settings.health_address, reflection=settings.reflection,
        )  # fmt: skip
        server.add(_NAME, lambda grpc_server: gateway_pb2_grpc.add_GatewayServicer_to_server(service.servicer, grpc_server))
        async with contextlib.aclosing(workers):
            await workers.start()
            await service.load()
            metrics_port = serve_metrics(settings.metrics_address, registry) if settings.metrics_address else None
            port = await server.start()
            await service.start()
            await server.set_serving(True)
            tell_ready(
                settings.ready_file,
                address=with_port(settings.address, port),
                metrics_address=with_port(settings.metrics_address, metrics_port),
            )
            await wait_for_signal()
            await server.set_serving(False)
            await service.stop()
            await server.stop(settings.drain_s)


def main() -> None:
    """Read the settings, serve, and say in one line why that isn't possible."""
    try:
        settings = read_settings(GatewaySettings, "SEEDVR2_GATEWAY", os.environ)
        setup_logging("gateway", settings.log_level)
        asyncio.run(serve(settings, Path(settings.store_directory).absolute()))
    except SettingsError as error:
        print(error.message, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
