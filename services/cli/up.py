"""``seedvr2 up``: all services on this machine, until Ctrl-C."""

import argparse
import asyncio
import contextlib

from services.cli.local import LocalStack, StackOptions
from services.cli.output import tell
from services.cli.progress import Bar


async def run(arguments: argparse.Namespace) -> int:
    """Start everything, say where it is, stop it in order when this is cancelled."""
    options = StackOptions(
        data_directory=arguments.data,
        host=arguments.host,
        gateway_port=arguments.grpc_port,
        rest_port=arguments.rest_port,
        worker_port=arguments.worker_port,
        page_port=None if arguments.no_page else arguments.port,
        metrics_port=arguments.metrics_port,
        model=arguments.model,
        model_directory=arguments.model_directory,
    )
    async with contextlib.AsyncExitStack() as running:
        with Bar() as bar:
            bar.say("Starting the services")
            stack = await running.enter_async_context(LocalStack(options, tell))
        _tell_where(stack, options)
        running.callback(tell, "Stopping.")
        await asyncio.Event().wait()
    return 0


def _tell_where(stack: LocalStack, options: StackOptions) -> None:
    if stack.page_address:
        tell(f"web page  http://{stack.page_address}")
    tell(f"gateway   {stack.gateway_address} (gRPC), http://{stack.rest_address}/v1/videos")
    tell(f"data      {options.data_directory.absolute()}, logs in {stack.log_directory.absolute()}")
    tell("Ready; Ctrl-C stops it.")
