"""One hub, or a mirror of it: what it says about a file, a stream of its bytes, and its refusals in words.

Everything goes over plain HTTP, never through Xet storage: a mirror and a proxy understand it, a transfer can be resumed by
another process, and the token goes to the hub alone (a redirect to another host drops it).
"""

import contextlib
import email.utils
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # exported, but not by name

from services.common.errors import ServiceError, SettingsError, Unavailable
from services.inference.delivery.catalogue import SourceFile
from services.inference.delivery.settings import PREFIX, TOKEN_VARIABLE, DeliverySettings, Token, check_endpoint

_LIBRARY = "seedvr2"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PASSING_STATUSES = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """What the hub says about a file."""

    url: str
    """Of exactly this version."""

    commit: str
    """That it belongs to; empty where the server doesn't say."""

    etag: str
    """Names the content; empty where the server doesn't say."""

    size_bytes: int
    """0: unknown."""

    @property
    def sha256(self) -> str:
        """Of its content, as the hub states it; empty where it doesn't."""
        return self.etag if _SHA256.fullmatch(self.etag) else ""


class Hub:
    """The server that the settings name."""

    def __init__(self, settings: DeliverySettings, token: Token | None) -> None:
        # The library would ask the public hub, whatever the endpoint, for words to put into its user agent.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        self._endpoint = (settings.endpoint or _usual_endpoint()).rstrip("/")
        self._token = token
        self._timeout_s = settings.timeout_s
        self._stall_s = settings.stall_s

    @property
    def sends_token_in_clear(self) -> bool:
        """Whether someone between here and the server could read the token."""
        parts = urlsplit(self._endpoint)
        return self._token is not None and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")

    def describe(self, source: SourceFile) -> RemoteFile:
        """Ask about a file.

        Raises:
            SettingsError: the hub doesn't have it, or not for us.
            Unavailable: no answer now.
        """
        with self._in_words(source):
            found = get_hf_file_metadata(
                self._url(source, source.revision),
                # False keeps the library from looking for a token in places of its own.
                token=self._token.secret if self._token else False,
                timeout=self._timeout_s,
                library_name=_LIBRARY,
                endpoint=self._endpoint,
            )
        return RemoteFile(
            url=self._url(source, found.commit_hash or source.revision),
            commit=found.commit_hash or "",
            etag=found.etag or "",
            size_bytes=found.size or 0,
        )

    @contextlib.contextmanager
    def stream(self, source: SourceFile, url: str, offset: int) -> Iterator[httpx2.Response]:
        """Open a file's bytes from ``offset`` on; the server may send all of them (status 200) or have none left (416).

        What goes wrong while the block reads comes out as the same errors as in :meth:`describe`.
        """
        headers = {"User-Agent": _LIBRARY, "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token.secret}"
        if offset:
            headers["Range"] = f"bytes={offset}-"
        timeout = httpx2.Timeout(self._timeout_s, read=self._stall_s)
        with self._in_words(source), get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                hf_raise_for_status(response)
            yield response

    def _url(self, source: SourceFile, revision: str) -> str:
        try:
            return hf_hub_url(source.repository, source.file, revision=revision or None, endpoint=self._endpoint)
        except HFValidationError as error:
            raise SettingsError(f"{source.repository!r} is not the name of a repository, which is like owner/name.") from error

    @contextlib.contextmanager
    def _in_words(self, source: SourceFile) -> Iterator[None]:
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise SettingsError("HF_HUB_OFFLINE forbids the network, and the model is not whole on the volume.") from error
        except HfHubHTTPError as error:
            raise self._refusal(error, source) from error
        except httpx2.RequestError as error:
            raise self._lost_connection(error) from error

    def _refusal(self, error: HfHubHTTPError, source: SourceFile) -> ServiceError:
        status, host = error.response.status_code, error.response.url.host
        if status in _PASSING_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            text = f"{host} answered HTTP {status}" + (": too many requests." if status == HTTPStatus.TOO_MANY_REQUESTS else ".")
            return Unavailable(text, retry_after_s=asked_pause_s(error.response.headers))
        if status == HTTPStatus.UNAUTHORIZED:
            return SettingsError(self._unauthorized(host, source.repository), field="token_file")
        if status == HTTPStatus.FORBIDDEN:
            return SettingsError(self._forbidden(error, host, source.repository), field="token_file")
        if status == HTTPStatus.NOT_FOUND:
            return _not_found(error, host, source)
        return SettingsError(
            f"{host} answered HTTP {status} when asked for {source.file} of {source.repository}.", field="endpoint"
        )

    def _unauthorized(self, host: str, repository: str) -> str:
        if self._token:
            return f"{host} refuses the token from {self._token.origin} for {repository}: it is wrong, expired or not for it."
        return (
            f"{host} shows {repository} only with a token, or there is no such repository: check the name, or put a token into "
            f"a file that {PREFIX}_TOKEN_FILE names, or into {TOKEN_VARIABLE}."
        )

    def _forbidden(self, error: HfHubHTTPError, host: str, repository: str) -> str:
        if isinstance(error, GatedRepoError):
            return f"{repository} is gated: accept its terms at {self._endpoint}/{repository} with the account of the token."
        whom = f"the token from {self._token.origin}" if self._token else "anybody without a token"
        return f"{host} doesn't let {whom} read {repository}; the token needs read access to it, or a proxy forbids the address."

    def _lost_connection(self, error: httpx2.RequestError) -> ServiceError:
        host = _asked_host(error) or urlsplit(self._endpoint).hostname
        if certificate := _certificate_error(error):
            return SettingsError(
                f"The certificate of {host} can't be verified ({certificate.verify_message}): let this machine trust its issuer.",
                field="endpoint",
            )
        if isinstance(error, httpx2.ConnectTimeout):
            return Unavailable(f"{host} did not accept a connection in {self._timeout_s:g} s.")
        if isinstance(error, httpx2.TimeoutException):
            return Unavailable(f"{host} stopped sending.")
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            return Unavailable(f"{host} can't be reached: {error}.")
        return Unavailable(f"The connection to {host} was cut.")


def _usual_endpoint() -> str:
    try:
        check_endpoint(constants.ENDPOINT)
    except ValueError as error:
        raise SettingsError(f"HF_ENDPOINT={constants.ENDPOINT!r}: {error}.", field="endpoint") from error
    return constants.ENDPOINT


def asked_pause_s(headers: Mapping[str, str]) -> float | None:
    """How long a server asks its clients to wait, in seconds; None where it doesn't."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    asked = headers.get("retry-after", "").strip()
    if asked.isdigit():
        return float(asked)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return None


def _not_found(error: HfHubHTTPError, host: str, source: SourceFile) -> SettingsError:
    if isinstance(error, RevisionNotFoundError):
        return SettingsError(f"{source.repository} on {host} has no revision {source.revision or 'main'!r}.", field="revision")
    field = "text_embedding" if source.role == "pos_emb" else "endpoint"
    if isinstance(error, RemoteEntryNotFoundError):
        return SettingsError(f"{source.repository} on {host} has no file {source.file}{_hint(source)}.", field=field)
    return SettingsError(f"{host} has no {source.file} of {source.repository}, or hides it{_hint(source)}.", field=field)


def _hint(source: SourceFile) -> str:
    return f"; {PREFIX}_TEXT_EMBEDDING can name another place or a mounted file" if source.role == "pos_emb" else ""


def _asked_host(error: httpx2.RequestError) -> str:
    try:
        return error.request.url.host
    except RuntimeError:
        return ""


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
