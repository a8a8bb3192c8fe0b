"""TLS of servers and channels: which files, what can be wrong with them, and what a failed handshake means in words."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from services.common.errors import SettingsError
from services.common.watched import Watched


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a server shows, and whom it lets in."""

    certificate: Path
    """PEM: its certificate, then those in between, without the root."""

    key: Path
    """PEM: its private key, without a pass phrase."""

    client_ca: Path | None = None
    """PEM: who signs the certificates that clients must show; None: they need none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTls:
    """Which servers a client believes, and what it shows."""

    ca: Path | None = None
    """PEM: who signs the certificates of servers; None: the public authorities."""

    certificate: Path | None = None
    """PEM: what the client shows to servers that want a certificate; None: nothing."""

    key: Path | None = None
    """PEM: its private key."""

    server_name: str = ""
    """The name that the server's certificate must carry; empty: the host of the address."""


_NOT_CONNECTED = "failed to connect to all addresses"
_HANDSHAKES = (
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet; compare the clocks"),
    ("Hostname Verification Check failed", "its certificate is for another name"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is signed by nobody whom this side trusts; is the CA file right?"),
    ("WRONG_VERSION_NUMBER", "it doesn't speak TLS"),
    ("Socket closed", "it closed the connection at once: perhaps it wants TLS, or a certificate that it trusts"),
)


def server_tls(certificate: str, key: str, client_ca: str) -> ServerTls | None:
    """TLS by the settings of a server, which are paths; None where they are empty.

    Raises:
        ValueError: they don't fit together.
    """
    if bool(certificate) != bool(key) or (client_ca and not certificate):
        raise ValueError("tls_certificate_file and tls_key_file belong together, and tls_client_ca_file needs both")
    if not certificate:
        return None
    return ServerTls(certificate=Path(certificate), key=Path(key), client_ca=Path(client_ca) if client_ca else None)


def channel_tls(ca: str, certificate: str = "", key: str = "", server_name: str = "") -> ChannelTls | None:
    """TLS by the settings of a client, which are paths; None where they name neither an authority nor a certificate.

    Raises:
        ValueError: they don't fit together.
    """
    if bool(certificate) != bool(key):
        raise ValueError("a client's certificate file and key file belong together")
    if not (ca or certificate):
        return None
    return ChannelTls(
        ca=Path(ca) if ca else None, certificate=Path(certificate) if certificate else None, key=Path(key) if key else None,
        server_name=server_name,
    )  # fmt: skip


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """What a server shows; files that change are read again at the next connection.

    Raises:
        SettingsError: a file can't be read, is not what it should be, or has expired.
    """
    paths = [tls.certificate, tls.key] + ([tls.client_ca] if tls.client_ca else [])
    watched = Watched(paths, _server_configuration)
    return grpc.dynamic_ssl_server_credentials(watched.get(), watched.get, tls.client_ca is not None)


def channel_credentials(tls: ChannelTls) -> grpc.ChannelCredentials:
    """What a client believes and shows, as the files are now.

    Raises:
        SettingsError: a file can't be read, is not what it should be, or has expired.
    """
    return watched_credentials(tls).get()


def watched_credentials(tls: ChannelTls) -> Watched[grpc.ChannelCredentials]:
    """The same, other ones each time that the files have changed. Raises SettingsError."""
    if (tls.certificate is None) != (tls.key is None):
        raise SettingsError("A client certificate and its key belong together; name both, or none.")

    def read(*files: bytes) -> grpc.ChannelCredentials:
        pair, authority = (files[:2], files[2:]) if tls.certificate else ((), files)
        ca = _checked_ca(authority[0]) if authority else None
        if not pair:
            return grpc.ssl_channel_credentials(ca)
        certificate, key = checked_pair(*pair)
        return grpc.ssl_channel_credentials(ca, key, certificate)

    return Watched([path for path in (tls.certificate, tls.key, tls.ca) if path], read)


def handshake_words(details: str) -> str:
    """Why no connection came about, from gRPC's words; empty where it has nothing to do with TLS."""
    if not details.startswith(_NOT_CONNECTED):
        return ""
    return next((words for mark, words in _HANDSHAKES if mark in details), "")


def _server_configuration(certificate: bytes, key: bytes, client_ca: bytes | None = None) -> grpc.ServerCertificateConfiguration:
    checked_pair(certificate, key)
    ca = _checked_ca(client_ca) if client_ca is not None else None
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)


def checked_pair(certificate: bytes, key: bytes) -> tuple[bytes, bytes]:
    """Both, if they belong together and are valid now. Raises ValueError."""
    first = _certificates(certificate)[0]
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("the key file holds no private key in PEM form without a pass phrase") from error
    if private.public_key() != first.public_key():
        raise ValueError("the key does not belong to the certificate")
    if first.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise ValueError(f"the certificate has expired on {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it")
    return certificate, key


def _checked_ca(data: bytes) -> bytes:
    _certificates(data)
    return data


def _certificates(data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ValueError("the file holds no certificate in PEM form") from error
