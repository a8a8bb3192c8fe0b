"""What was used, and may be."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.gateway.rest.answers import NO_STORE
from services.gateway.rest.backend import Backend
from services.gateway.rest.bodies import choice_query
from services.gateway.rest.encoder import encode_account


def usage_handler(backend: Backend) -> Callable[[Request], Awaitable[Response]]:
    """The handler of /v1/usage."""

    async def usage(request: Request) -> Response:
        all_owners = choice_query(request, "all_owners", ("false", "true")) == "true"
        account = await backend.quotas.account(request.query_params.get("month", ""), all_owners=all_owners)
        return JSONResponse(encode_account(account), headers=NO_STORE)

    return usage
