"""What requests bring besides files: small JSON objects, and numbers in headers and queries."""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from services.common.errors import InvalidInput, InvalidOption
from services.common.http.files import limited

MAX_JSON_BYTES = 64 << 10


def content_type(request: Request) -> str:
    """The kind of body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        InvalidInput: it is none. TooLarge: it is larger than anything that is sent here.
    """
    try:
        body = json.loads(b"".join([data async for data in limited(request.stream(), MAX_JSON_BYTES)]), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The body must be a JSON object.") from error
    if not isinstance(body, dict):
        raise InvalidInput("The body must be a JSON object.")
    return body


def whole_query(request: Request, name: str, *, least: int, most: int, default: int) -> int:
    """A whole number of the query. Raises InvalidOption."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or not least <= int(text) <= most:
        raise InvalidOption(f"{name} must be a whole number, {least} to {most}.", field=name)
    return int(text)


def choice_query(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """One of the words that a query may have, by default the first. Raises InvalidOption."""
    text = request.query_params.get(name, choices[0])
    if text not in choices:
        raise InvalidOption(f"{name} must be one of {', '.join(choices)}.", field=name)
    return text


async def whole_body(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes. Raises InvalidInput where the client goes away before its end."""
    try:
        async for data in request.stream():
            yield data
    except ClientDisconnect as error:
        raise InvalidInput("The connection broke before the body's end; send it again.") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
