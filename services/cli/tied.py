"""Become ``python -m MODULE``, tied to the process that asked: ``python -m services.cli.tied PARENT_PID MODULE``.

A parent that is killed with -9 can't end its services itself; the kernel does it then.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for the parent's fate, then run the module in this process."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
