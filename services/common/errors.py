"""Every error that crosses a border of this project, in one tree.

    ServiceError                   above all; carries a sentence for the person who can act
    ├── InvalidInput               what was sent can't be used; send something else
    │   ├── InvalidOption          an option, named by its field, has a wrong value
    │   └── InvalidVideo           the file is not a video that can be restored
    │       └── SpanFatal          a part of it has taken several workers along
    ├── NotFound                   no such thing for this owner
    │   ├── JobNotFound
    │   └── UploadNotFound
    ├── AlreadyExists              the id is taken by a different request
    ├── WrongState                 not now: the thing is not in a state that allows it
    │   ├── ChunkOutOfOrder        packets or upload bytes don't continue what is there
    │   ├── ModelBroken            a model's files are missing, changed or of another shape
    │   └── FingerprintChanged     a worker can't restore what another fingerprint planned
    ├── RangeOutOfBounds           a part was asked for that the object doesn't have
    ├── Unauthenticated            say who you are: the token is wrong or has expired
    │   └── TokenMissing           there is none
    ├── PermissionDenied           whoever calls may not do this
    ├── TooLarge                   a limit of this installation is passed
    │   ├── LoginsLimited          too many wrong tokens came from there; wait
    │   ├── QuotaExceeded          whoever calls has used up what they may have
    │   ├── QueueFull              too much is waiting; come back later
    │   ├── GpuOutOfMemory         a span didn't fit on the GPU; the worker goes on
    │   └── StoreFull              no space left for artifacts
    ├── Unavailable                try again, perhaps elsewhere
    │   ├── ModelNotReady          still loading
    │   ├── StoreUnavailable       the artifact store doesn't answer
    │   ├── WorkerBroken           a rank, or the whole worker, was lost
    │   ├── WorkerUnavailable      no worker can be reached
    │   ├── ClusterUnavailable     the Kubernetes API doesn't answer
    │   │   └── ClusterForbidden   it doesn't allow what the gateway needs
    │   ├── NewerRelease           a later release wrote it, and its servers know what it means
    │   └── Draining               this server is about to stop
    ├── DeadlinePassed             time ran out
    ├── JobCancelled               somebody cancelled it
    ├── NotSupported               defined, but not offered by this installation
    ├── SettingsError              the service can't start like this
    └── InternalError              our fault; details are in the log, never in the text

How each becomes a gRPC status is decided in ``rpc/status.py`` alone.
"""

from typing import ClassVar


class ServiceError(Exception):
    """An error with a sentence for whoever can act on it."""

    retryable: ClassVar[bool] = False
    """Whether the same call can succeed later or elsewhere."""

    def __init__(self, message: str, *, field: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """Path of the request field that is wrong; empty where no field is."""
        self.retry_after_s = retry_after_s
        """When a retry makes sense, in seconds; None where it doesn't or nothing is known."""


class InvalidInput(ServiceError):
    """What was sent can't be used."""


class InvalidOption(InvalidInput):
    """An option has a value that can't be used."""


class InvalidVideo(InvalidInput):
    """The file is not a video that can be restored."""


class SpanFatal(InvalidVideo):
    """A part of the video has taken several workers along; no more are risked."""


class NotFound(ServiceError):
    """No such thing for this owner."""


class JobNotFound(NotFound):
    """No such job."""


class UploadNotFound(NotFound):
    """No such upload."""


class AlreadyExists(ServiceError):
    """The id is taken by a different request."""


class WrongState(ServiceError):
    """The thing is not in a state that allows this."""


class ChunkOutOfOrder(WrongState):
    """Bytes or packets don't continue what is there."""


class ModelBroken(WrongState):
    """A model's files are missing, changed or of another shape."""


class FingerprintChanged(WrongState):
    """A worker can't restore what another fingerprint planned."""


class RangeOutOfBounds(ServiceError):
    """A part was asked for that the object doesn't have."""


class Unauthenticated(ServiceError):
    """A token is wrong or has expired."""


class TokenMissing(Unauthenticated):
    """The call shows no token, and this gateway wants one."""


class PermissionDenied(ServiceError):
    """Whoever calls may not do this."""


class TooLarge(ServiceError):
    """A limit of this installation is passed."""


class LoginsLimited(TooLarge):
    """Too many wrong tokens came from there, or from everywhere."""

    retryable = True


class QuotaExceeded(TooLarge):
    """Whoever calls has used up what they may have; ``field`` names the quota."""


class QueueFull(TooLarge):
    """Too much is waiting."""

    retryable = True


class GpuOutOfMemory(TooLarge):
    """A span didn't fit on the GPU; the worker goes on."""

    retryable = True


class StoreFull(TooLarge):
    """No space left for artifacts."""

    retryable = True


class Unavailable(ServiceError):
    """Try again, perhaps elsewhere."""

    retryable = True


class ModelNotReady(Unavailable):
    """The model is still loading."""


class StoreUnavailable(Unavailable):
    """The artifact store doesn't answer."""


class WorkerBroken(Unavailable):
    """A rank, or the whole worker, was lost."""


class WorkerUnavailable(Unavailable):
    """No worker can be reached."""


class ClusterUnavailable(Unavailable):
    """The Kubernetes API doesn't answer."""


class ClusterForbidden(ClusterUnavailable):
    """The Kubernetes API doesn't allow what the gateway needs."""

    retryable = False


class NewerRelease(Unavailable):
    """A later release of the service wrote this; its servers know what it means."""


class Draining(Unavailable):
    """This server is about to stop."""


class DeadlinePassed(ServiceError):
    """Time ran out."""


class JobCancelled(ServiceError):
    """Somebody cancelled it."""


class NotSupported(ServiceError):
    """Defined, but not offered by this installation."""


class SettingsError(ServiceError):
    """The service can't start like this."""


class InternalError(ServiceError):
    """Our fault; details are in the log."""


def all_errors() -> dict[str, type[ServiceError]]:
    """Every class of the tree by its name, the root included."""
    found: dict[str, type[ServiceError]] = {}
    todo: list[type[ServiceError]] = [ServiceError]
    while todo:
        error = todo.pop()
        found[error.__name__] = error
        todo.extend(error.__subclasses__())
    return found
