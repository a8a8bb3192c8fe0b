"""``seedvr2 models``: what an installation can restore with."""

import argparse

from services.cli.jobs import connected
from services.cli.output import as_record, print_result, table


async def list_models(arguments: argparse.Namespace) -> int:
    """Every model that the gateway knows, and whether a worker serves it now."""
    async with connected(arguments) as client:
        answer = await client.models()
    rows = [
        (model.name, "yes" if model.ready else "no", f"{model.parameters / 1e6:,.1f} M", ", ".join(model.pools), model.title)
        for model in answer.models
    ]
    text = table(("NAME", "READY", "PARAMETERS", "POOLS", "TITLE"), rows) if rows else "No worker has reported a model yet."
    print_result(arguments.json, as_record(answer), text)
    return 0
