"""Start, health, reflection and drain of a gRPC server; options of channels to one."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.errors import SettingsError
from services.common.rpc.incoming import TracingInterceptor
from services.common.rpc.status import ErrorInterceptor
from services.common.rpc.tls import ChannelTls, ServerTls, channel_credentials, server_credentials

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
    # Clients ping every 20 s.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 5),
    # A client that is gone without a word is noticed after 60 + 20 s, and its calls end.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CHANNEL_OPTIONS = (
    *_COMMON_OPTIONS,
    # Of a name with many addresses any, so that clients spread; but one, because an upload goes on best where it began.
    ("grpc.service_config", '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'),
    # A peer that is gone without a word is noticed after 20 + 60 s: a ping may wait behind what a slow line has to send.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 3_000),
)
_NEAR_OPTIONS = (
    # On a fast network, after 20 + 10 s; and also where the peer is only listened to for long.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


_TLS_SCHEME = "grpcs://"


def is_secure(address: str) -> bool:
    """Whether an address asks for TLS."""
    return address.startswith(_TLS_SCHEME)


def open_channel(
    address: str, tls: ChannelTls | None = None, credentials: grpc.ChannelCredentials | None = None, *, near: bool = False
) -> grpc.aio.Channel:
    """A channel to ``address`` with this project's limits and keepalive: with TLS where the address begins with grpcs://, or
    where ``tls`` says how; ``credentials`` are those that were made of it, None: they are made now.
    That a ``near`` peer, on a fast network, is gone is noticed within half a minute.

    Raises:
        SettingsError: a file of ``tls`` can't be used.
    """
    target = address.removeprefix(_TLS_SCHEME)
    own = (*_CHANNEL_OPTIONS, *(_NEAR_OPTIONS if near else ()))
    if tls is None and not is_secure(address):
        return grpc.aio.insecure_channel(target, options=own)
    tls = tls or ChannelTls()
    name = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
    return grpc.aio.secure_channel(target, credentials or channel_credentials(tls), options=(*own, *name))


LIVE = "seedvr2.live"
"""Of the health service: this is SERVING as long as the process answers, whatever its services do."""


class Server:
    """A gRPC server that says how it is and stops in order."""

    def __init__(
        self, address: str, *, tls: ServerTls | None = None, health_address: str = "", reflection: bool = True,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (), connection_age_s: float = 0.0, connection_grace_s: float = 0.0,
    ) -> None:  # fmt: skip
        """``tls`` None: without. ``health_address``: another host:port, without TLS, where only health is answered; empty: none.
        ``reflection``: whether callers can ask which calls there are. ``interceptors`` may raise errors of ours.
        ``connection_age_s``: older connections take no new calls, so that clients spread over servers that came later; calls
        on them have ``connection_grace_s`` to end. 0: any age."""
        self._address = address
        self._tls = tls
        self._health_address = health_address
        self._reflection = reflection
        options = (*_SERVER_OPTIONS, *_age_options(connection_age_s, connection_grace_s))
        self._server = grpc.aio.server(interceptors=[ErrorInterceptor(), TracingInterceptor(), *interceptors], options=options)
        self._probed = grpc.aio.server(options=_SERVER_OPTIONS) if health_address else None
        self._health = health.aio.HealthServicer()
        self._names: list[str] = []
        for server in self._servers():
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

    def add(self, name: str, register: Callable[[grpc.aio.Server], None]) -> None:
        """Offer a service: its full name, and what registers its servicer."""
        register(self._server)
        self._names.append(name)

    async def start(self) -> int:
        """Listen; every service is NOT_SERVING until :meth:`set_serving`. Returns the port.

        Raises:
            SettingsError: the address is taken or wrong, or a file of TLS can't be used.
        """
        if self._reflection:
            names = [health.SERVICE_NAME, reflection.SERVICE_NAME, *self._names]
            reflection.enable_server_reflection(names, self._server)
        await self._health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self.set_serving(False)
        port = _listen(self._server, self._address, self._tls)
        if self._probed is not None:
            _listen(self._probed, self._health_address, None)
        for server in self._servers():
            await server.start()
        _log.info("listening", extra={"address": self._address, "port": port, "tls": self._tls is not None})
        return port

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Not serving from now on; open calls have ``grace_s`` to end."""
        await self._health.enter_graceful_shutdown()
        for server in self._servers():
            await server.stop(grace_s)

    def _servers(self) -> list[grpc.aio.Server]:
        return [self._server] if self._probed is None else [self._server, self._probed]


def _age_options(age_s: float, grace_s: float) -> tuple[tuple[str, int], ...]:
    if not age_s:
        return ()
    return (
        ("grpc.max_connection_age_ms", round(age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(grace_s * 1000)),
    )


def _listen(server: grpc.aio.Server, address: str, tls: ServerTls | None) -> int:
    credentials = server_credentials(tls) if tls else None
    try:
        return int(server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address))
    except RuntimeError as error:
        raise SettingsError(f"Can't listen on {address}: the port is taken or the address is wrong; choose another.") from error


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
