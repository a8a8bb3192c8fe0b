"""What a request shows of who makes it; the door decides, as for calls by gRPC."""

from collections.abc import Sequence

from starlette.requests import Request

from services.common.addresses import Network, client_address
from services.common.login import AUTHORIZATION, FORWARDED_FOR, SUBJECT
from services.gateway.identity.audit import CallRecord
from services.gateway.identity.door import Presented

_TARGETS = {"video_id": "jobs", "upload_id": "uploads"}


def presented(request: Request, trusted: Sequence[Network]) -> Presented:
    """Token, subject and address; ``trusted`` are proxies whose x-forwarded-for is believed."""
    headers = request.headers
    return Presented(
        # Several at once name nobody: which would count?
        authorization=" ".join(headers.getlist(AUTHORIZATION)),
        subject=" ".join(headers.getlist(SUBJECT)),
        address=client_address(request.client.host if request.client else "", ",".join(headers.getlist(FORWARDED_FOR)), trusted),
    )


def keep_record(record: CallRecord, request: Request) -> None:
    """Let the record say what the request is about: what its path names, or :func:`note_made` later."""
    request.state.record = record
    for name, kind in _TARGETS.items():
        if name in request.path_params:
            record.target = f"{kind}/{request.path_params[name]}"


def note_made(request: Request, target: str) -> None:
    """Say in the record what came of the request: jobs/ID or uploads/ID."""
    request.state.record.target = target
