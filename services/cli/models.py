"""``seedvr2 models``: which models there are, here and in a cluster, and how they come here."""

import argparse
import asyncio
import os
from typing import Any

from services.cli.connection import connected
from services.cli.output import UsageError, as_record, print_result, table
from services.common.fleet import ModelState
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.inference.delivery.options import settings_of
from services.inference.delivery.progress import size_text
from services.inference.delivery.states import model_states
from services.inference.model_files import named_directory

_UNKNOWN = ModelState(name="", title="", state="not known here")


def list_models(arguments: argparse.Namespace) -> int:
    """Every model, how it is in this machine's model directory and, of a gateway that is named, who serves it."""
    directory = named_directory(settings_of(vars(arguments), os.environ).directory)
    here = {state.name: state for state in model_states(directory)}
    served = asyncio.run(_served(arguments)) if arguments.server else {}
    names = [*here, *(name for name in served if name not in here)]
    pairs = [(name, here.get(name, _UNKNOWN), served.get(name)) for name in names]
    record = {"directory": str(directory), "models": [_record(*pair) for pair in pairs]}
    head = ("NAME", "HERE", "SIZE", *(("SERVED", "PARAMETERS", "POOLS") if arguments.server else ()), "TITLE")
    rows = [_row(*pair, with_gateway=bool(arguments.server)) for pair in pairs]
    print_result(arguments.json, record, f"{table(head, rows)}\n\nHERE is {directory}.")
    return 0


def fetch_or_verify(arguments: argparse.Namespace) -> int:
    """Bring models here, or compare them with their hashes.

    Raises:
        UsageError: this installation is a client only.
    """
    try:
        # Imported here: other commands need nothing that talks to a hub.
        from services.inference.delivery import command
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Models are fetched and verified where the inference service is installed; {error.name} is missing here."
        ) from error

    command.run(vars(arguments), os.environ)
    return 0


async def _served(arguments: argparse.Namespace) -> dict[str, pb.Model]:
    async with connected(arguments) as client:
        return {model.name: model for model in (await client.models()).models}


def _row(name: str, here: ModelState, served: pb.Model | None, *, with_gateway: bool) -> tuple[str, ...]:
    size = size_text(here.size_bytes) if here.size_bytes else ""
    title = here.title or (served.title if served else "")
    if not with_gateway:
        return name, here.state, size, title
    model = served or pb.Model()
    parameters = f"{model.parameters / 1e6:,.1f} M" if model.parameters else ""
    return name, here.state, size, "yes" if model.ready else "no", parameters, ", ".join(model.pools), title


def _record(name: str, here: ModelState, served: pb.Model | None) -> dict[str, Any]:
    gateway = {"gateway": as_record(served)} if served else {}
    return {"name": name, "title": here.title, "here": here.state, "size_bytes": here.size_bytes} | gateway
