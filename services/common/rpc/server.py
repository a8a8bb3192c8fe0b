"""Start, health, reflection and drain of a gRPC server; options of channels to one."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.errors import SettingsError
from services.common.rpc.status import ErrorInterceptor

_log = logging.getLogger(__name__)
MAX_MESSAGE_BYTES = 4 << 20
PIECE_BYTES = 1 << 20
"""Video travels in pieces of at most this size: large enough for throughput, small enough for flow control."""

_COMMON_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.bdp_probe", 0),
)
_SERVER_OPTIONS = (
    *_COMMON_OPTIONS,
    # Without it a second server could silently share a port that is taken.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CHANNEL_OPTIONS = (
    *_COMMON_OPTIONS,
    # A peer that is gone without a word is noticed after 20 + 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
)


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to ``address`` with this project's limits and keepalive."""
    return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)


class Server:
    """A gRPC server that says how it is and stops in order."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=_SERVER_OPTIONS)
        self._health = health.aio.HealthServicer()
        self._names = [health.SERVICE_NAME, reflection.SERVICE_NAME]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(self, name: str, register: Callable[[grpc.aio.Server], None]) -> None:
        """Offer a service: its full name, and what registers its servicer."""
        register(self._server)
        self._names.append(name)

    async def start(self) -> int:
        """Listen; every service is NOT_SERVING until :meth:`set_serving`. Returns the port.

        Raises:
            SettingsError: the address is taken or wrong.
        """
        reflection.enable_server_reflection(self._names, self._server)
        await self.set_serving(False)
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise SettingsError(
                f"Can't listen on {self._address}: the port is taken or the address is wrong; choose another."
            ) from error
        await self._server.start()
        _log.info("listening", extra={"address": self._address, "port": port})
        return int(port)

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names[2:]):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Not serving from now on; open calls have ``grace_s`` to end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


async def wait_for_signal(signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> signal.Signals:
    """Return the first of ``signals`` that this process gets."""
    loop = asyncio.get_running_loop()
    got: asyncio.Future[signal.Signals] = loop.create_future()

    def arrive(number: signal.Signals) -> None:
        if not got.done():
            got.set_result(number)

    for each in signals:
        loop.add_signal_handler(each, arrive, each)
    return await got
