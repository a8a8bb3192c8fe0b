"""Children of the real kind, forked from a process that has imported everything: a start costs milliseconds.

What runs in them is what runs in production: ``run_child`` with the limits, then the child's own main function.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from services.common.channel import Channel, ChannelClosed, Message, channel_pair
from services.common.child import Limits, run_child

_CRASHED = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a child ended."""

    answer: Message | None = None
    """Its last word; None: it ended without one."""

    code: int = 0
    """Exit code; below 0: the signal."""

    seconds: float = 0.0
    """Wall clock."""

    late: bool = False
    """It was still at work when its time was over, and was killed."""

    @property
    def words(self) -> str:
        """In short."""
        if self.late:
            return f"late: at work after {self.seconds:.1f} s"
        if self.answer is None:
            return f"died: {signal.Signals(-self.code).name if self.code < 0 else self.code}"
        return f"error: {self.answer.fields['reason']}" if self.answer.kind == "error" else "ok"


Talk = Callable[[Channel], Message]
"""What the parent says; returns the last answer."""


def run(main: Callable[[Channel], None], talk: Talk, *, limits: Limits, wall_s: float) -> Outcome:
    """Fork a child with ``main``, talk to it, and wait for its end."""
    ours, theirs = channel_pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_child(main, theirs.fileno(), limits)
    theirs.close()
    started, answer = time.monotonic(), None
    with contextlib.closing(ours), _killed_after(pid, wall_s) as late:
        with contextlib.suppress(ChannelClosed):
            answer = talk(Channel(ours))
        ours.close()
        _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - started
    return Outcome(answer=answer, code=os.waitstatus_to_exitcode(status), seconds=seconds, late=bool(late))


def _be_child(main: Callable[[Channel], None], end: int, limits: Limits) -> None:
    code = _CRASHED
    try:
        sys.argv = ["child", str(end), str(os.getppid()), json.dumps(asdict(limits))]
        run_child(main)
        code = 0
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def _killed_after(pid: int, wall_s: float) -> Iterator[list[bool]]:
    late: list[bool] = []

    def kill(number: int, frame: Any) -> None:
        late.append(True)
        os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        yield late
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
