"""Serves an ASGI application on a socket of its own and ends in order. Signals are the caller's."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from services.common.errors import SettingsError


class HttpServer(uvicorn.Server):
    """A uvicorn server that leaves signals alone and says when it listens."""

    def __init__(self, app: ASGIApp, listener: socket.socket, drain_s: float, *, tls: ssl.SSLContext | None = None) -> None:
        """``listener`` is a bound socket; ``drain_s`` the time that open transfers have to end, in seconds."""
        self._socket = listener
        self._listening = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                # It would believe anybody on this machine; which proxies are believed is a setting.
                proxy_headers=False,
                lifespan="on",
                timeout_graceful_shutdown=max(1, round(drain_s)),
                ssl_context_factory=(lambda *_: tls) if tls else None,
            )
        )

    async def run_until(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then let open transfers end."""
        serving = asyncio.create_task(self.serve(sockets=[self._socket]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self.stopping()
        self.should_exit = True
        await serving

    def stopping(self) -> None:
        """Called once when the server begins to end."""

    async def wait_listening(self) -> None:
        """Return once requests are answered."""
        await self._listening.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; called by uvicorn."""
        await super().startup(sockets)
        self._listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: ``__main__`` decides what a signal means."""
        yield


def address_of(listener: socket.socket) -> str:
    """Where a bound socket is, as host:port."""
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def bound_socket(address: str) -> socket.socket:
    """A socket at ``address``, host:port; port 0 takes any free one.

    Raises:
        SettingsError: the address is taken or wrong.
    """
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as undo:
        try:
            family, *_, place = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)[0]  # noqa: S104 - empty: all
            bound = undo.enter_context(socket.socket(family))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((place[0], int(port)))
        except (OSError, OverflowError, ValueError) as error:
            raise SettingsError(
                f"Can't listen on {address}: the port is taken or the address is wrong; choose another."
            ) from error
        undo.pop_all()
    return bound
