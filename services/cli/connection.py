"""How commands reach a gateway: its address, who makes the calls, and whom they believe."""

import argparse
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from services.cli.output import tell
from services.common.client import GatewayClient
from services.common.login import token_file_login
from services.common.rpc.server import is_secure
from services.common.rpc.tls import ChannelTls

CONNECT_S = 5.0
"""How long a gateway may take to accept the connection."""

TOKEN_FILE, CA_FILE = "SEEDVR2_TOKEN_FILE", "SEEDVR2_CA_FILE"
CERTIFICATE_FILE, KEY_FILE = "SEEDVR2_CERTIFICATE_FILE", "SEEDVR2_KEY_FILE"
"""Environment variables that name the files where options don't."""

_LOOPBACK = ("127.", "localhost:", "[::1]:")


@contextlib.asynccontextmanager
async def connected(arguments: argparse.Namespace) -> AsyncIterator[GatewayClient]:
    """A client of the gateway that was named.

    Raises:
        Unavailable: none answers. SettingsError: a file can't be used.
    """
    async with client_of(arguments) as client:
        await client.wait_connected(CONNECT_S)
        yield client


def client_of(arguments: argparse.Namespace) -> GatewayClient:
    """The same, not connected yet. Raises SettingsError."""
    token_file = _file(arguments.gateway_token_file, TOKEN_FILE)
    login = token_file_login(token_file, arguments.act_as) if token_file else None
    if login and not is_secure(arguments.server) and not arguments.server.startswith(_LOOPBACK):
        tell(f"The token travels to {arguments.server} without encryption; name the gateway as grpcs://{arguments.server}.")
    return GatewayClient(arguments.server, login=login, tls=_tls_of(arguments) if is_secure(arguments.server) else None)


def _tls_of(arguments: argparse.Namespace) -> ChannelTls:
    ca = _file(arguments.ca, CA_FILE)
    if arguments.certificate or arguments.key:
        # Half of a pair is never completed by the environment.
        return ChannelTls(ca=ca, certificate=arguments.certificate, key=arguments.key)
    return ChannelTls(ca=ca, certificate=_file(None, CERTIFICATE_FILE), key=_file(None, KEY_FILE))


def own_client(address: str) -> GatewayClient:
    """A client of a gateway that this command started; it may want a token, too. Raises SettingsError."""
    token_file = _file(None, TOKEN_FILE)
    return GatewayClient(address, login=token_file_login(token_file) if token_file else None)


def _file(named: Path | None, variable: str) -> Path | None:
    from_environment = os.environ.get(variable)
    return named or (Path(from_environment) if from_environment else None)
