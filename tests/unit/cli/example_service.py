"""A service for the tests of the command line: listens on its address and does what BEHAVIOUR says."""

import json
import os
import signal
import socket
import sys
from pathlib import Path


def main() -> None:
    behaviour = os.environ["SEEDVR2_EXAMPLE_BEHAVIOUR"]
    host, _, port = os.environ["SEEDVR2_EXAMPLE_ADDRESS"].rpartition(":")
    listener = socket.socket()
    try:
        listener.bind((host, int(port)))
    except OSError:
        sys.stderr.write(f"Can't listen on {host}:{port}: the port is taken.\n")
        sys.exit(2)
    if behaviour == "crash":
        sys.exit(7)
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener.listen()
    ready = Path(os.environ["SEEDVR2_EXAMPLE_READY_FILE"])
    address = f"{host}:{listener.getsockname()[1]}"
    draft = ready.with_suffix(".draft")
    draft.write_text(json.dumps({"address": address, "pid": os.getpid()}))
    draft.rename(ready)
    sys.stderr.write(f"listening on {address}\n")
    sys.stderr.flush()
    signal.pause()


if __name__ == "__main__":
    main()
