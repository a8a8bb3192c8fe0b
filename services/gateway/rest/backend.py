"""What the handlers use: the use cases that the gRPC calls use, too."""

from dataclasses import dataclass

from services.common.metrics import GatewayMetrics
from services.gateway.book import JobBook
from services.gateway.catalogue import Catalogue
from services.gateway.control import JobControl
from services.gateway.identity.caller import current_caller
from services.gateway.identity.quotas import Quotas
from services.gateway.keys import Ref
from services.gateway.results import Results
from services.gateway.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The gateway's use cases."""

    uploads: Uploads
    """Bytes that arrive."""

    book: JobBook
    """Jobs as they are."""

    control: JobControl
    """What is done with jobs."""

    results: Results
    """What is read of jobs."""

    catalogue: Catalogue
    """Which models there are."""

    quotas: Quotas
    """What is used, and may be."""

    metrics: GatewayMetrics
    """Requests are counted."""

    version: str
    """Of this release."""

    max_upload_bytes: int
    """Of a file."""

    link_s: int
    """How long links to the store hold, in seconds; 0: files come from here."""


def mine(name: str) -> Ref:
    """A job, or an upload, of whoever calls."""
    return Ref(current_caller().owner, name)
