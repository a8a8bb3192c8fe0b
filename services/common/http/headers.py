"""Values of request headers."""

from starlette.requests import Request

from services.common.errors import InvalidOption


def whole_header(request: Request, name: str, default: int | None = None) -> int:
    """A header's whole number. Raises InvalidOption where it is none, or absent without a default."""
    text = request.headers.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidOption(f"The header {name} must be a whole number.", field=name)
    return int(text)
