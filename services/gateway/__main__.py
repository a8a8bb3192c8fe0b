"""Start the gateway: ``python -m services.gateway``."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common import tracing
from services.common.addresses import parse_networks
from services.common.errors import SettingsError, StoreFull, StoreUnavailable
from services.common.logs import setup_logging
from services.common.metrics import GatewayMetrics, serve_metrics
from services.common.otlp import PREFIX as TRACING_PREFIX
from services.common.otlp import TracingSettings, open_recorder
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.ready import tell_ready, with_port
from services.common.rpc.server import Server, wait_for_signal
from services.common.rpc.tls import channel_tls, server_tls
from services.common.settings import read_settings
from services.gateway.buckets.settings import PREFIX as BUCKETS_PREFIX
from services.gateway.buckets.settings import BucketSettings
from services.gateway.container.adapter import Container
from services.gateway.fleet.workers import Fleet
from services.gateway.identity.settings import PREFIX as IDENTITY_PREFIX
from services.gateway.identity.settings import IdentitySettings
from services.gateway.identity.setup import make_door, make_interceptor
from services.gateway.pools.memory import RememberedPools
from services.gateway.rest.app import Access
from services.gateway.rest.server import serving
from services.gateway.service import GatewayService, container_limits, version
from services.gateway.settings import GatewaySettings
from services.gateway.store.base import Store
from services.gateway.store.local import LocalStore
from services.gateway.store.s3.settings import PREFIX, S3Settings
from services.gateway.store.s3.store import S3Store
from services.gateway.surroundings import surroundings
from services.gateway.web.settings import PREFIX as WEB_PREFIX
from services.gateway.web.settings import WebSettings

_NAME = "seedvr2.v1.Gateway"
_PREFIX = "SEEDVR2_GATEWAY"
_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def open_store(settings: GatewaySettings, s3: S3Settings, directory: Path, metrics: GatewayMetrics) -> AsyncIterator[Store]:
    """The store that the settings name: a bucket that was tried out, or a directory. Raises SettingsError, StoreUnavailable."""
    if not s3.endpoint:
        with contextlib.closing(LocalStore(directory, min_free_bytes=settings.store_min_free_bytes)) as local:
            yield local
        return
    if s3.cache_bytes < settings.max_upload_bytes:
        raise SettingsError(
            f"{PREFIX}_CACHE_BYTES is {s3.cache_bytes} and an upload, which is read from a local copy, may have "
            f"{settings.max_upload_bytes} bytes: set it higher, or {_PREFIX}_MAX_UPLOAD_BYTES lower."
        )
    store = S3Store(
        s3, min_free_bytes=settings.store_min_free_bytes, on_failure=lambda kind: metrics.store_failures.labels(kind).inc()
    )
    with contextlib.closing(store):
        for line in await store.bucket.prepare():
            _log.info(line)
        yield store


async def serve(
    settings: GatewaySettings,
    s3: S3Settings,
    identity: IdentitySettings,
    web: WebSettings,
    buckets: BucketSettings,
    directory: Path,
) -> None:
    """Run until SIGTERM or SIGINT. Raises SettingsError, StoreUnavailable."""
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    stall_s = settings.span_stall_s + settings.worker_poll_s
    door = make_door(identity, settings.address, metrics)
    tls = channel_tls(
        settings.worker_ca_file, settings.worker_certificate_file, settings.worker_key_file, settings.worker_tls_name
    )
    async with contextlib.AsyncExitStack() as stack:
        finders, leases = await stack.enter_async_context(surroundings(settings, directory, metrics))
        fleet = Fleet(finders, poll_s=settings.worker_poll_s, stall_s=stall_s, tls=tls)
        await stack.enter_async_context(contextlib.aclosing(fleet))
        store = await stack.enter_async_context(open_store(settings, s3, directory, metrics))
        workers = RememberedPools(fleet, store, keep_s=settings.keep_pools_s)
        await stack.enter_async_context(contextlib.aclosing(workers))
        service = GatewayService(
            settings=settings, store=store, workers=workers, container=Container(container_limits(settings)), leases=leases,
            metrics=metrics, web=web, buckets=buckets, quota_file=identity.quota_file,
        )  # fmt: skip
        stack.callback(service.close)
        shown = server_tls(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
        server = Server(
            settings.address, tls=shown, health_address=settings.health_address, reflection=settings.reflection,
            connection_age_s=settings.connection_age_s, connection_grace_s=settings.connection_grace_s,
            interceptors=[make_interceptor(identity, door)],
        )  # fmt: skip
        server.add(_NAME, lambda grpc_server: gateway_pb2_grpc.add_GatewayServicer_to_server(service.servicer, grpc_server))
        access = Access(
            door=door, trusted_proxies=parse_networks(identity.trusted_proxies), origins=settings.rest_cors_origins,
            address=settings.rest_address, hosts=settings.rest_hosts,
        )  # fmt: skip
        await fleet.start()
        await workers.start()
        await service.load()
        metrics_port = serve_metrics(settings.metrics_address, registry) if settings.metrics_address else None
        port = await server.start()
        async with serving(service.rest_app(access), settings.rest_address, settings.drain_s, shown) as rest_address:
            await service.start()
            await server.set_serving(True)
            tell_ready(
                settings.ready_file,
                address=with_port(settings.address, port),
                metrics_address=with_port(settings.metrics_address, metrics_port),
                rest_address=rest_address,
            )
            await wait_for_signal()
            await server.set_serving(False)
            await service.stop()
            stopping = asyncio.create_task(server.stop(settings.drain_s))
        await stopping


def main() -> None:
    """Read the settings, serve, and say in one line why that isn't possible."""
    try:
        settings = read_settings(GatewaySettings, _PREFIX, os.environ)
        s3 = read_settings(S3Settings, PREFIX, os.environ)
        identity = read_settings(IdentitySettings, IDENTITY_PREFIX, os.environ)
        web = read_settings(WebSettings, WEB_PREFIX, os.environ)
        buckets = read_settings(BucketSettings, BUCKETS_PREFIX, os.environ)
        setup_logging("gateway", settings.log_level)
        recorder = open_recorder(read_settings(TracingSettings, TRACING_PREFIX, os.environ), "gateway", version())
        with tracing.start_recording(recorder):
            asyncio.run(serve(settings, s3, identity, web, buckets, Path(settings.store_directory).absolute()))
    except (SettingsError, StoreFull, StoreUnavailable) as error:
        print(error.message, file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsError) else 1)


if __name__ == "__main__":
    main()
