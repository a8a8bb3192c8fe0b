"""The client of the S3 server: connections, certificates, credentials."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import ChainedProvider, EnvAWSProvider, EnvMinioProvider, IamAwsProvider, Provider

from services.common.errors import SettingsError
from services.gateway.store.s3.settings import S3Settings


class FileProvider(Provider):
    """Credentials from mounted files, read for each request: a secret that is renewed needs no restart."""

    def __init__(self, access_key: Path, secret_key: Path, session_token: Path | None) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._session_token = session_token

    def retrieve(self) -> Credentials:
        """The credentials of now. Raises ValueError for a file that is gone or empty."""
        token = _text(self._session_token) if self._session_token else None
        return Credentials(_text(self._access_key), _text(self._secret_key), session_token=token)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error


def connect(settings: S3Settings) -> Minio:
    """A client that tries each request once; :class:`Calls` tries again.

    Raises:
        SettingsError: a file that can't be read.
    """
    try:
        pool = urllib3.PoolManager(
            maxsize=settings.connections,
            timeout=urllib3.Timeout(connect=settings.timeout_s, read=settings.timeout_s),
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=settings.ca_file or certifi.where(),
        )
        _check_ca(settings.ca_file)
        provider = _provider(settings)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise SettingsError(f"A file of the object store's settings can't be used: {error}.") from error
    return _client(settings, settings.endpoint, pool, provider)


def signer(settings: S3Settings) -> Minio:
    """A client that signs links for the address that users reach; it sends nothing."""
    return _client(settings, settings.public_endpoint or settings.endpoint, urllib3.PoolManager(), _provider(settings))


def _client(settings: S3Settings, endpoint: str, pool: urllib3.PoolManager, provider: Provider) -> Minio:
    url = urlsplit(endpoint)
    client = Minio(url.netloc, secure=url.scheme == "https", region=settings.region, http_client=pool, credentials=provider)
    if settings.path_style:
        client.disable_virtual_style_endpoint()
    else:
        client.enable_virtual_style_endpoint()
    return client


def _provider(settings: S3Settings) -> Provider:
    if not settings.access_key_file:
        return ChainedProvider([EnvAWSProvider(), EnvMinioProvider(), IamAwsProvider(http_client=_quick_pool())])
    token = Path(settings.session_token_file) if settings.session_token_file else None
    provider = FileProvider(Path(settings.access_key_file), Path(settings.secret_key_file), token)
    provider.retrieve()
    return provider


def _quick_pool() -> urllib3.PoolManager:
    # Outside a cloud nobody answers there.
    return urllib3.PoolManager(timeout=urllib3.Timeout(connect=2.0, read=10.0), retries=urllib3.Retry(total=1))


def _check_ca(path: str) -> None:
    if path:
        ssl.create_default_context(cafile=path)
