"""The gateway of a command: the one that was named, or one of its own with all that it needs, stopped after."""

import argparse
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from services.cli.connection import CONNECT_S, connected, own_client
from services.cli.local import LocalStack, StackOptions
from services.cli.output import tell
from services.cli.progress import Bar
from services.common.client import GatewayClient


@contextlib.asynccontextmanager
async def gateway(arguments: argparse.Namespace, bar: Bar, directory: Path | None = None) -> AsyncIterator[GatewayClient]:
    """A client of it; services of its own keep everything in ``directory``, or in a temporary one."""
    if arguments.server:
        async with connected(arguments) as client:
            yield client
        return
    bar.say("Starting the services")
    with contextlib.ExitStack() as kept:
        directory = directory or Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="seedvr2-")))
        options = StackOptions(data_directory=directory, model=arguments.model, model_directory=arguments.model_directory)
        async with LocalStack(options, tell) as stack, own_client(stack.gateway_address) as client:
            await client.wait_connected(CONNECT_S)
            yield client
