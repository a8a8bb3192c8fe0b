"""``python -m services.common.check ADDRESS…``: whether services are well, for the health checks of containers and clusters.

An address is ``grpc://host:port[/service]``, or ``grpcs://…`` with TLS, which is asked by the standard health service, or an
``http(s)://…`` that answers a GET with 200. The exit status is 0 if all are well; else 1, with a line for each one that isn't.
"""

import argparse
import asyncio
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.errors import SettingsError
from services.common.http.tls import client_context
from services.common.rpc.server import open_channel
from services.common.rpc.tls import ChannelTls

_TIMEOUT_S = 5.0


def main(argv: Sequence[str]) -> int:
    """Ask every address that ``argv`` names; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.common.check", description="Ask services whether they are well.")
    parser.add_argument(
        "addresses", nargs="+", type=_address, metavar="ADDRESS", help="grpc(s)://host:port[/service] or http(s)://…"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM file of who signs the services' certificates")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM file of what services are shown that want one")
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM file of its private key")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_S, metavar="S", help="seconds for each (default: %(default)s)")
    arguments = parser.parse_args(argv)
    tls = ChannelTls(ca=arguments.ca, certificate=arguments.certificate, key=arguments.key)
    return asyncio.run(_check(arguments.addresses, arguments.timeout, tls))


async def _check(addresses: Sequence[SplitResult], timeout_s: float, tls: ChannelTls) -> int:
    faults = await asyncio.gather(*(fault_of(address, timeout_s, tls) for address in addresses))
    for address, fault in zip(addresses, faults, strict=True):
        if fault:
            print(f"{address.geturl()}: {fault}", file=sys.stderr)
    return int(any(faults))


async def fault_of(address: SplitResult, timeout_s: float, tls: ChannelTls | None = None) -> str:
    """What is wrong at an address, in words; empty: nothing. ``tls`` counts for grpcs:// and https://."""
    tls = tls or ChannelTls()
    try:
        if address.scheme in ("grpc", "grpcs"):
            secure = tls if address.scheme == "grpcs" else None
            return await _fault_of_health(address.netloc, address.path.strip("/"), timeout_s, secure)
        context = client_context(tls) if address.scheme == "https" else None
        return await asyncio.to_thread(_fault_of_page, address.geturl(), timeout_s, context)
    except SettingsError as error:
        return error.message


async def _fault_of_health(target: str, service: str, timeout_s: float, tls: ChannelTls | None) -> str:
    try:
        async with open_channel(target, tls) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if name == "SERVING" else name


def _fault_of_page(url: str, timeout_s: float, context: ssl.SSLContext | None) -> str:
    try:
        with urllib.request.urlopen(url, timeout=timeout_s, context=context) as answer:  # noqa: S310 - http and https alone, see _address
            return "" if answer.status == 200 else f"HTTP {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def _address(text: str) -> SplitResult:
    address = urlsplit(text)
    if address.scheme not in ("grpc", "grpcs", "http", "https") or not address.netloc:
        raise argparse.ArgumentTypeError(f"{text!r} is not like grpc://host:port or http://host:port/path")
    return address


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
