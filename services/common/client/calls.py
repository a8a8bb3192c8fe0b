"""Calls to a gateway: each with a deadline, repeated where that is safe; streams that are opened again where they broke off."""

import contextlib
import functools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from services.common import tracing
from services.common.errors import DeadlinePassed, Draining, ServiceError, StoreUnavailable, Unavailable, WrongState
from services.common.login import Login, metadata_of, no_login
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.renewed import RenewedChannel
from services.common.rpc.status import error_of
from services.common.rpc.tls import ChannelTls, handshake_words
from services.common.transfer import Patience

T = TypeVar("T", bound=Message)
Reading = tuple[pb.ObjectInfo, AsyncGenerator[bytes, None]]
"""What an object is as a whole, and the pieces of the part that was asked for."""

STREAM_S = 3600.0
"""Deadline of a stream. One that passes it is opened again like one that broke: it was only long, or nobody was there."""

# Answers such as WorkerUnavailable are news for the caller; these say only that this moment was a bad one.
_PASSING = (Unavailable, StoreUnavailable, Draining)


class Calls:
    """How a client talks to the gateway at an address; the connection is opened at the first call."""

    def __init__(
        self, address: str, *, timeout_s: float, patience_s: float, login: Login | None = None, tls: ChannelTls | None = None
    ) -> None:
        self._address = address
        self._tls = tls
        self._login = login or no_login
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._stub: tuple[grpc.aio.Channel, Any] | None = None

    @functools.cached_property
    def _connection(self) -> RenewedChannel:
        return RenewedChannel(self._address, self._tls)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection, with the certificates that the files have now. Raises SettingsError."""
        return self._connection.get()

    @property
    def stub(self) -> Any:
        """The gateway's methods. Raises SettingsError."""
        channel = self.channel
        if self._stub is None or self._stub[0] is not channel:
            self._stub = channel, gateway_pb2_grpc.GatewayStub(channel)
        return self._stub[1]

    async def aclose(self) -> None:
        """End open calls and the connection."""
        await self._connection.aclose()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the next call carries: who makes it, for which request and in which trace."""
        return (*metadata_of(self._login()), *tracing.outgoing())

    def patience(self) -> Patience:
        """How long a stream is taken up again while nothing arrives."""
        return Patience(self._patience_s)

    async def call(self, answer: type[T], request: Any, *, again: bool = True) -> T:
        """The unary call that answers with ``answer``; ``again``: a repetition does no harm when an answer was lost."""
        method = getattr(self.stub, answer.DESCRIPTOR.name.removesuffix("Response"))
        patience = Patience(self._timeout_s)
        while True:
            try:
                return cast(T, await method(request, timeout=patience.left_s(), metadata=self.metadata()))
            except grpc.RpcError as failure:
                error = self.error(failure)
                if not (again and passing(error)):
                    raise error from failure
            await patience.wait(error)

    async def messages(self, open_stream: Callable[[], Any]) -> AsyncGenerator[Any, None]:
        """Messages of a stream that is opened again whenever it breaks or ends; the reader knows when it has them all."""
        patience = self.patience()
        while True:
            error: ServiceError = self.nobody()
            call = open_stream()
            try:
                async for message in call:
                    patience.renew()
                    yield message
            except grpc.RpcError as failure:
                error = self.error(failure)
                if not (passing(error) or failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise error from failure
            finally:
                call.cancel()
            await patience.wait(error)

    async def read(self, open_part: Callable[[int, int], Any], offset: int, length: int) -> Reading:
        """A part of an object; ``open_part`` opens a stream of ``length`` bytes from an offset on, 0: all."""
        part = _Part(offset, length)
        messages = self.messages(lambda: open_part(part.offset, part.length))
        first = await anext(messages)
        to_the_end = max(0, first.info.size_bytes - offset)
        part.length = min(length, to_the_end) if length else to_the_end
        return first.info, _data(first, messages, part)

    def error(self, failure: grpc.RpcError) -> ServiceError:
        """What a call that failed means to its caller."""
        error = error_of(failure)
        if rpc_status.from_call(failure) is not None:
            return error
        if isinstance(error, Unavailable):
            return self.nobody(handshake_words(failure.details() or ""))
        if isinstance(error, DeadlinePassed):
            return DeadlinePassed(f"The gateway at {self._address} didn't answer within {self._timeout_s:g} s.")
        return error

    def nobody(self, why: str = "") -> Unavailable:
        """No gateway can be reached; ``why`` where that is known."""
        if why:
            return Unavailable(f"The gateway at {self._address} can't be talked to: {why}.")
        return Unavailable(f"No gateway answers at {self._address}; is it running, and is the address right?")


def passing(error: ServiceError) -> bool:
    """Whether an error says only that this moment was a bad one."""
    return type(error) in _PASSING


@dataclass(slots=True)
class _Part:
    """What is still missing of a download; length 0 before the size is known: all."""

    offset: int
    length: int


async def _data(first: Any, messages: AsyncGenerator[Any, None], part: _Part) -> AsyncGenerator[bytes, None]:
    message = first
    async with contextlib.aclosing(messages):
        while True:
            if message.HasField("info") and message.info != first.info:
                raise WrongState("The file changed while it was read; begin again.")
            part.offset += len(message.data)
            part.length -= len(message.data)
            if message.data:
                yield message.data
            if part.length <= 0:
                return
            message = await anext(messages)
