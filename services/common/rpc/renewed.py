"""A channel to one address that is opened anew when the files of its TLS have changed."""

import asyncio

import grpc

from services.common.rpc.server import is_secure, open_channel
from services.common.rpc.tls import ChannelTls, watched_credentials

# Calls that are longer are cut, and their callers open them again.
_GRACE_S = 3600.0


class RenewedChannel:
    """Opened at once; calls that are in hand when it is replaced end on the channel that they began on."""

    def __init__(self, address: str, tls: ChannelTls | None) -> None:
        """See :func:`open_channel`. Raises SettingsError."""
        self._address = address
        secure = tls is not None or is_secure(address)
        self._tls = (tls or ChannelTls()) if secure else None
        self._files = watched_credentials(self._tls) if self._tls else None
        self._credentials = self._files.get() if self._files else None
        self._channel = open_channel(address, self._tls, self._credentials)
        self._closing: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def get(self) -> grpc.aio.Channel:
        """The channel for the next call; files that can't be used leave the one before."""
        credentials = self._files.get() if self._files else None
        if credentials is not self._credentials:
            before, self._channel = self._channel, open_channel(self._address, self._tls, credentials)
            self._credentials = credentials
            closing = asyncio.create_task(before.close(_GRACE_S))
            self._closing[closing] = before
            closing.add_done_callback(self._closing.pop)
        return self._channel

    async def aclose(self) -> None:
        """End all calls."""
        channels = [*self._closing.values(), self._channel]
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in channels))
