"""Tell whoever started this process where it listens."""

import json
import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)


def tell_ready(ready_file: str, *, address: str, metrics_address: str, **others: str) -> None:
    """Log the real addresses and, where a file is named, write them there; it appears with all its bytes.

    Args:
        ready_file: path; empty: none.
        address: host:port of the service.
        metrics_address: host:port of /metrics; empty: off.
        others: further addresses, by name.
    """
    addresses = {"address": address, "metrics_address": metrics_address, **others, "pid": os.getpid()}
    _log.info("ready", extra=addresses)
    if ready_file:
        path = Path(ready_file)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(addresses), encoding="utf-8")
        draft.replace(path)


def with_port(address: str, port: int | None) -> str:
    """``address`` with the port that was really taken; empty where there is none."""
    return "" if port is None else f"{address.rpartition(':')[0]}:{port}"
