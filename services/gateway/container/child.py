"""The child process: one operation, then its end."""

import importlib
import logging

from services.common.channel import Channel, ChannelClosed
from services.common.child import run_child
from services.common.errors import InternalError, InvalidVideo, ServiceError

_log = logging.getLogger(__name__)
# Modules by operation, imported when needed: a child lives for one, and a start is what most of them cost.
_MODULES = {
    "probe": "probe", "index": "probe", "read": "read", "join": "join", "pictures": "pictures", "picture": "picture",
    "cuts": "cuts", "archive_index": "archive", "archive_read": "archive", "archive_picture": "archive",
    "archive_cuts": "archive",
}  # fmt: skip


def main(channel: Channel) -> None:
    """Say "ready", then do what the first message says; see each operation for its fields and answers."""
    channel.send("ready")
    message = channel.receive()
    try:
        module = importlib.import_module(f"services.gateway.container.{_MODULES[message.kind]}")
        getattr(module, message.kind)(channel, message.fields)
    except (ServiceError, ChannelClosed):
        raise
    except MemoryError as error:
        raise InvalidVideo("Reading the file takes more memory than is allowed here: it is damaged, or too large.") from error
    except Exception as error:
        _log.exception("an operation on a file failed", extra={"operation": message.kind})
        raise InternalError("A file could not be processed; the service's log has the details.") from error


if __name__ == "__main__":
    run_child(main)
