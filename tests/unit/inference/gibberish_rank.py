"""A rank whose words are no messages."""

import socket
import sys
import time

if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1].split(",")[0])) as end:
        end.sendall(b"\xff" * 64)
        time.sleep(600)
