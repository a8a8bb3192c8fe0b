"""Tell whoever started this process where it listens."""

import json
import logging
import os
from pathlib import Path

from services.gateway.settings import GatewaySettings

_log = logging.getLogger(__name__)


def tell_ready(settings: GatewaySettings, port: int, metrics_port: int | None) -> None:
    """Log the real addresses and write them to the ready file, which appears with all its bytes."""
    addresses = {
        "address": _with_port(settings.address, port),
        "metrics_address": "" if metrics_port is None else _with_port(settings.metrics_address, metrics_port),
        "pid": os.getpid(),
    }
    _log.info("ready", extra=addresses)
    if settings.ready_file:
        path = Path(settings.ready_file)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(addresses))
        draft.replace(path)


def _with_port(address: str, port: int) -> str:
    return f"{address.rpartition(':')[0]}:{port}"
