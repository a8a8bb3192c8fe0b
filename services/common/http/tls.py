"""TLS of servers that speak HTTP, and of who asks them, from the same files as that of gRPC."""

import ssl
from pathlib import Path

from services.common.rpc.tls import ChannelTls, ServerTls, channel_credentials, checked_pair
from services.common.watched import Watched


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """What a server shows; a certificate that changes is read again at the next connection.

    Raises:
        SettingsError: a file can't be read, is not what it should be, or has expired.
    """

    def read(certificate: bytes, key: bytes, _: bytes = b"") -> ssl.SSLContext:
        checked_pair(certificate, key)
        return _context(tls)

    paths: list[Path] = [tls.certificate, tls.key, *([tls.client_ca] if tls.client_ca else [])]
    watched = Watched(paths, read)
    first = watched.get()

    def newest(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = watched.get()

    first.sni_callback = newest
    return first


def client_context(tls: ChannelTls) -> ssl.SSLContext:
    """What a client believes and shows, as the files are now.

    Raises:
        SettingsError: a file can't be read, is not what it should be, or has expired.
    """
    channel_credentials(tls)
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise ValueError(f"it is no certificate with its key: {error.reason or error}") from error
    return context
