"""``seedvr2 models``: which models there are, here and in a cluster, and how they come here."""

import argparse
import asyncio
import os
from typing import Any

from services.cli.jobs import connected
from services.cli.output import as_record, print_result, table
from services.common.fleet import ModelState
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.inference.delivery.options import settings_of
from services.inference.delivery.progress import size_text
from services.inference.delivery.states import model_states
from services.inference.model_files import named_directory

_NOT_LISTED = "not known here"


def list_models(arguments: argparse.Namespace) -> int:
    """Every model, how it is in this machine's model directory and, of a gateway that is named, who serves it."""
    directory = named_directory(settings_of(vars(arguments), os.environ).directory)
    here = model_states(directory)
    record: dict[str, Any] = {"directory": str(directory), "models": [_record(state) for state in here]}
    if not arguments.server:
        rows = [(state.name, state.state, _size(state), state.title) for state in here]
        print_result(arguments.json, record, f"{table(('NAME', 'HERE', 'SIZE', 'TITLE'), rows)}\n\nHERE is {directory}.")
        return 0
    answer = asyncio.run(_served(arguments))
    print_result(arguments.json, record | {"gateway": as_record(answer)}, _with_gateway(here, answer))
    return 0


def fetch_or_verify(arguments: argparse.Namespace) -> int:
    """Bring models here, or compare them with their hashes."""
    # Imported here: other commands need nothing that talks to a hub.
    from services.inference.delivery import command

    command.run(vars(arguments), os.environ)
    return 0


async def _served(arguments: argparse.Namespace) -> pb.ListModelsResponse:
    async with connected(arguments) as client:
        return await client.models()


def _with_gateway(here: tuple[ModelState, ...], answer: pb.ListModelsResponse) -> str:
    states, served = {state.name: state for state in here}, {model.name: model for model in answer.models}
    rows = []
    for name in [*states, *(name for name in served if name not in states)]:
        state, model = states.get(name), served.get(name, pb.Model())
        rows.append(
            (
                name,
                state.state if state else _NOT_LISTED,
                _size(state) if state else "",
                "yes" if model.ready else "no",
                f"{model.parameters / 1e6:,.1f} M" if model.parameters else "",
                ", ".join(model.pools),
                state.title if state else model.title,
            )
        )
    return table(("NAME", "HERE", "SIZE", "SERVED", "PARAMETERS", "POOLS", "TITLE"), rows)


def _size(state: ModelState) -> str:
    return size_text(state.size_bytes) if state.size_bytes else ""


def _record(state: ModelState) -> dict[str, Any]:
    return {"name": state.name, "title": state.title, "state": state.state, "size_bytes": state.size_bytes}
