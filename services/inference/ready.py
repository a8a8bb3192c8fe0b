"""Tell the world where this worker listens and how it is."""

import json
import logging
import os
from pathlib import Path

from services.common.rpc.server import Server
from services.inference.engine import Engine
from services.inference.settings import InferenceSettings

_log = logging.getLogger(__name__)


def tell_listening(settings: InferenceSettings, port: int, metrics_port: int | None) -> None:
    """Log the real addresses and write them to the ready file, which appears with all its bytes."""
    addresses = {
        "address": _with_port(settings.address, port),
        "metrics_address": "" if metrics_port is None else _with_port(settings.metrics_address, metrics_port),
        "pid": os.getpid(),
    }
    _log.info("ready for calls", extra=addresses)
    if settings.ready_file:
        path = Path(settings.ready_file)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(addresses))
        draft.replace(path)


async def follow_health(engine: Engine, server: Server) -> None:
    """Let the health service answer what the engine says, until this is cancelled."""
    while True:
        await server.set_serving(engine.serving)
        await engine.wait_change()


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
