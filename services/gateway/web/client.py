"""An HTTP client that connects only to addresses that were checked, each time it connects."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore2
from httpcore2 import AsyncNetworkBackend, AsyncNetworkStream

from services.common.errors import InvalidInput, SettingsError, Unavailable
from services.gateway.web.addresses import Address, AddressGuard
from services.gateway.web.urls import Url, host_matches, redirected

_log = logging.getLogger(__name__)
_AGENT = "seedvr2"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5

Headers = Iterable[tuple[str, str]]
Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""The addresses of a host, as a name server gives them now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered."""

    status: int
    """Of HTTP."""

    headers: Mapping[str, str]
    """Names in lower case; the last one of a name."""

    url: Url
    """That answered, after redirects."""

    pieces: AsyncIterator[bytes]
    """The body; reading it raises Unavailable where it breaks off."""


class WebClient:
    """Requests to servers that users name. No proxies, cookies or credentials of the environment, no decompression."""

    def __init__(
        self, guard: AddressGuard, *, tls: ssl.SSLContext, http: bool = False, timeout_s: float = 30.0,
        resolve: Resolve | None = None,
    ) -> None:  # fmt: skip
        """``http``: unencrypted URLs will do; ``timeout_s`` limits each wait for the network; ``resolve`` asks a name server."""
        self.http = http
        """Whether unencrypted URLs will do."""
        self._timeout_s = timeout_s
        self._tls = tls
        self._backend = _GuardedBackend(guard, resolve or _ask)

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: Url, *, headers: Headers = (), content: bytes | None = None, follow: bool = False,
        field: str = "", hosts: tuple[str, ...] = (),
    ) -> AsyncIterator[Answer]:  # fmt: skip
        """Send a request and read what comes back; ``follow``: also where redirects lead, each checked like the first.

        ``hosts`` are those that redirects may lead to, none: any; ``field`` names the URL in what is raised.

        Raises:
            InvalidInput: it leads to an address that isn't allowed, or nowhere.
            Unavailable: nobody answers, or not in time, or not in HTTP.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._one(method, url, headers, content) as answer:
                if not (follow and answer.status in _REDIRECTS):
                    yield answer
                    return
                url = redirected(url, answer.headers.get("location", ""), field=field, http=self.http)
                if hosts and not host_matches(url.host, hosts):
                    raise InvalidInput(f"The URL was redirected to {url.host}, where nothing is fetched from here.", field=field)
        raise InvalidInput(f"The URL was redirected more than {_MAX_REDIRECTS} times; give the one that it ends at.", field=field)

    async def check(self, url: Url, *, field: str) -> None:
        """Refuse what can be known to be refused later; a name that has no address just now may have one then.

        Raises:
            InvalidInput: the host has no address that is connected to from here.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._backend.addresses(url.host, url.port)
        except InvalidInput as error:
            raise InvalidInput(error.message, field=field) from error
        except (httpcore2.ConnectError, TimeoutError):
            return

    @contextlib.asynccontextmanager
    async def _one(
        self, method: str, url: Url, headers: Iterable[tuple[str, str]], content: bytes | None
    ) -> AsyncIterator[Answer]:
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        where = httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        named = [("User-Agent", _AGENT), ("Accept-Encoding", "identity"), *headers]
        # A pool of one connection that is not kept: names are asked for, and addresses checked, at every request.
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, network_backend=self._backend, max_connections=1, max_keepalive_connections=0
        )
        async with pool, contextlib.AsyncExitStack() as open_request:
            with _in_words(url):
                response = await open_request.enter_async_context(
                    pool.stream(method, where, headers=named, content=content, extensions={"timeout": limits})
                )
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            yield Answer(status=response.status, headers=found, url=url, pieces=_pieces(response, url))


class _GuardedBackend(AsyncNetworkBackend):
    """Asks for a host's addresses and connects to one of exactly these, so that no second answer can differ."""

    def __init__(self, guard: AddressGuard, resolve: Resolve) -> None:
        self._guard = guard
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:  # fmt: skip
        failure: Exception = httpcore2.ConnectError("no address")
        async with asyncio.timeout(timeout):
            addresses = await self.addresses(host, port)
        for address in addresses:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Those of a host that may be connected to. Raises InvalidInput where it has only others."""
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise httpcore2.ConnectError(f"no address of {host}") from error
        allowed = [address for address in found if self._guard.allows(address)]
        if found and not allowed:
            # The text doesn't tell the address: it may be one that only the inside of the network should know.
            _log.warning("a URL leads inside the network", extra={"host": host, "addresses": [str(a) for a in found]})
            raise InvalidInput(f"{host} has no public address, and others are not connected to from here; use another host.")
        return allowed


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Which servers are trusted: those of the system's authorities and of ``ca_file``, where it isn't empty.

    Raises:
        SettingsError: the file can't be read.
    """
    context = ssl.create_default_context()
    try:
        if ca_file:
            context.load_verify_locations(ca_file)
    except OSError as error:
        raise SettingsError(f"The certificates in {ca_file} can't be read: {error}.") from error
    return context


@contextlib.contextmanager
def _in_words(url: Url) -> Any:
    try:
        yield
    except (httpcore2.TimeoutException, TimeoutError) as error:
        raise Unavailable(f"{url.host} doesn't answer in time.") from error
    except httpcore2.NetworkError as error:
        raise Unavailable(f"{url.host} can't be reached, or the connection broke off{_mistrust(error)}.") from error
    except (httpcore2.ProtocolError, UnicodeError) as error:
        raise Unavailable(f"{url.host} doesn't answer as a web server does, or broke off in the middle.") from error


def _mistrust(error: BaseException | None) -> str:
    """What is wrong with the server's certificate, where that is what is behind an error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f": {error.verify_message.rstrip('.')}"
        error = error.__cause__ or error.__context__
    return ""


async def _pieces(response: httpcore2.Response, url: Url) -> AsyncIterator[bytes]:
    with _in_words(url):
        async for piece in response.aiter_stream():
            yield piece


async def _ask(host: str, port: int) -> list[Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A scope (fe80::1%eth0) is of no use to anyone but this machine.
    return [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]
