"""Have a checkpoint converted by a process that knows torch, which this one doesn't."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.common.child import Child, ChildDied
from services.common.errors import InternalError

CONVERSION_MODULE = "services.inference.gpu.conversion"

OnBytes = Callable[[int, int], None]
"""Called with bytes written and bytes in all."""

Convert = Callable[[Path, Path, OnBytes], None]
"""Writes a checkpoint (first path, in any format) as bf16 safetensors (second path, named ``<role>.safetensors``), whole or
not at all; raises ModelBroken where it can't be used, StoreFull where there is no space."""


def convert_apart(source: Path, destination: Path, on_bytes: OnBytes) -> None:
    """The conversion that every fetch uses; see :data:`Convert`. Blocking."""
    asyncio.run(_convert(source, destination, on_bytes))


async def _convert(source: Path, destination: Path, on_bytes: OnBytes) -> None:
    try:
        async with await Child.start(CONVERSION_MODULE, environment={"SEEDVR2_SERVICE": "models"}) as child:
            await child.send("convert", source=str(source), destination=str(destination))
            while (message := await child.receive()).kind == "progress":
                on_bytes(message.fields["done_bytes"], message.fields["total_bytes"])
    except ChildDied as error:
        raise InternalError(
            f"The process that converts {source.name} was lost: {error}. Fetch again; nothing is lost."
        ) from error
