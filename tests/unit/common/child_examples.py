"""Children for test_child.py."""

import os
import signal
import sys
import time

from services.common.channel import Channel
from services.common.child import handed_sockets, run_child
from services.common.errors import InvalidVideo


def main(channel: Channel) -> None:
    task = channel.receive()
    if task.kind == "echo":
        channel.send("echo", task.payload, environment=sorted(os.environ))
    elif task.kind == "write":
        handed_sockets()[task.fields["place"]].sendall(b"hello")
    elif task.kind == "refuse":
        raise InvalidVideo("no video in it", field="x")
    elif task.kind == "eat":
        data = bytearray(8 << 30)
        channel.send("ate", n=len(data))
    elif task.kind == "spin":
        while True:
            pass
    elif task.kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif task.kind == "exit":
        sys.exit(7)
    elif task.kind == "hang":
        time.sleep(600)


if __name__ == "__main__":
    run_child(main)
