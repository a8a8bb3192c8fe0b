"""Structured logs: one JSON object a line, with the ids of the request, the trace and the work that a line belongs to.

Ids are bound for a block (:func:`log_context`) and travel with the task, so that no call site repeats them.
"""

import contextlib
import contextvars
import json
import logging
import logging.handlers
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.common.tracing import trace_ids

_context: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("log_context", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def setup_logging(service: str, level: str = "INFO") -> None:
    """Send all logs of this process to standard error as JSON lines. Call once, in ``__main__``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("httpx", "httpx2", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def json_file_handler(service: str, file: Path) -> logging.Handler:
    """What writes the same lines into a file, which may be moved away at any time. Raises OSError: it can't be written."""
    handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8")
    handler.setFormatter(_JsonFormatter(service))
    return handler


@contextlib.contextmanager
def log_context(**ids: Any) -> Iterator[None]:
    """Add ``ids`` (``job_id``, ``span``, ``request_id``, …) to every line that this task logs inside the block."""
    token = _context.set({**(_context.get() or {}), **ids})
    try:
        yield
    finally:
        _context.reset(token)


def context_ids() -> dict[str, Any]:
    """The ids bound now."""
    return dict(_context.get() or {})


def log_ids() -> dict[str, str]:
    """What log lines carry now, for another process that works for this task."""
    return {name: str(value) for name, value in (trace_ids() | context_ids()).items()}


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **trace_ids(),
            **context_ids(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
