"""What interceptors need: a handler with something around its answer."""

import inspect
from collections.abc import Callable
from typing import Any

import grpc

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]

_KINDS: dict[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
_NAMES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_FIELDS = dict(zip(_KINDS.values(), _NAMES, strict=True))


def rewrapped(handler: Any, *, unary: Wrap, stream: Wrap) -> Any:
    """The same handler, its function replaced by what ``unary`` or, where it yields its answers, ``stream`` makes of it."""
    kind = _KINDS[(handler.request_streaming, handler.response_streaming)]
    function = getattr(handler, _FIELDS[kind])
    # One that writes its answers itself, as Watch of the health service does, is awaited as if it had a single one.
    wrap = stream if handler.response_streaming and not inspect.iscoroutinefunction(function) else unary
    return kind(
        wrap(function),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
