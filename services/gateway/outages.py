"""How long a job waits for a store that fails, and how outages are told. The clock is an argument."""

import logging
from dataclasses import dataclass

from services.common.errors import StoreFull, StoreUnavailable, Unavailable
from services.gateway.jobs import Job, State
from services.gateway.progress import Progress

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0
_LONGEST_TRY_S = 120.0
_ORDER = tuple(State)

Step = tuple[int, int]
"""How far a job is; larger is further."""


@dataclass(slots=True)
class Outage:
    """Failures of the store since a job got further."""

    limit_s: float
    """Seconds of waiting without any step forward after which a job is not tried again."""

    reached: Step = (-1, -1)
    """How far the job ever was."""

    waited_s: float = 0.0
    """Rests and tries since then."""

    failed: float = 0.0
    """When the store failed last, on a monotonic clock."""

    pause_s: float = _FIRST_PAUSE_S
    """The next rest."""

    def next_pause(self, error: StoreUnavailable, step: Step, now: float) -> float:
        """Seconds to rest before the job is tried again.

        Raises:
            StoreUnavailable: ``error``, where the job has waited long enough.
        """
        if step > self.reached:
            self.reached, self.waited_s, self.pause_s = step, 0.0, _FIRST_PAUSE_S
        else:
            # Through most of a long try the store was there.
            self.waited_s += min(now - self.failed, _LONGEST_TRY_S)
        self.failed = now
        if self.waited_s >= self.limit_s:
            raise error
        pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, _LONGEST_PAUSE_S)
        return pause_s


def log_failure(log: logging.Logger, what: str, error: BaseException, **extra: object) -> None:
    """Tell of something that failed and is done again later: an outage in a line, anything else with its traceback."""
    if isinstance(error, (Unavailable, StoreFull)):
        log.warning("%s: %s", what, error.message, extra=extra)
    else:
        log.error(what, exc_info=error, extra=extra)


def step_of(job: Job, progress: Progress) -> Step:
    """How far a job is."""
    return _ORDER.index(job.state), progress.frames_done
