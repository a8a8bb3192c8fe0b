"""Calls by gRPC come in through the door. Health and reflection stay open: they tell nothing of anybody."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc

from services.common.addresses import Network, client_address, peer_host
from services.common.login import AUTHORIZATION, FORWARDED_FOR, SUBJECT
from services.common.rpc.handlers import rewrapped
from services.gateway.identity.audit import CallRecord
from services.gateway.identity.door import Door, Presented

_OURS = "/seedvr2."
_TARGETS = {"job_id": "jobs", "upload_id": "uploads"}
_PARTS = ("job", "upload", "start")


class CallerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets handlers run in the name of whoever calls."""

    def __init__(self, door: Door, trusted_proxies: Sequence[Network]) -> None:
        """``trusted_proxies``: machines whose x-forwarded-for is believed."""
        self._door = door
        self._trusted = trusted_proxies

    async def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_OURS):
            return handler
        name = details.method.rpartition("/")[2]
        return rewrapped(handler, unary=functools.partial(self._unary, name), stream=functools.partial(self._stream, name))

    def _unary(self, name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            async with self._door.call(name, self._presented(context)) as record:
                response = await handler(_noted(request, record), context)
                _note(response, record)
                return response

        return answer

    def _stream(self, name: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        async def answer(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            async with (
                self._door.call(name, self._presented(context)) as record,
                contextlib.aclosing(handler(_noted(request, record), context)) as responses,
            ):
                async for response in responses:
                    yield response

        return answer

    def _presented(self, context: grpc.aio.ServicerContext) -> Presented:
        values: dict[str, list[str]] = {}
        for key, value in context.invocation_metadata() or ():
            values.setdefault(key, []).append(str(value))
        forwarded = ",".join(values.get(FORWARDED_FOR, ()))
        return Presented(
            # Several at once name nobody: which would count?
            authorization=" ".join(values.get(AUTHORIZATION, ())),
            subject=" ".join(values.get(SUBJECT, ())),
            address=client_address(peer_host(context.peer()), forwarded, self._trusted),
        )


def _noted(request: Any, record: CallRecord) -> Any:
    """The same request or, where they come as a stream, the same requests; the record learns what they are about."""
    if hasattr(request, "DESCRIPTOR"):
        _note(request, record)
        return request
    return _noted_stream(request, record)


async def _noted_stream(requests: AsyncIterator[Any], record: CallRecord) -> AsyncIterator[Any]:
    async for request in requests:
        if not record.target:
            _note(request, record)
        yield request


def _note(message: Any, record: CallRecord) -> None:
    """What a message of a call is about: by a field of its own, or of its main part."""
    for field, _ in message.ListFields():
        if field.name in _TARGETS and (value := getattr(message, field.name)):
            record.target = f"{_TARGETS[field.name]}/{value}"
            return
        if field.name in _PARTS and not record.target:
            _note(getattr(message, field.name), record)
