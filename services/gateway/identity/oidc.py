"""Tokens of an identity provider: JSON Web Tokens by OpenID Connect, verified with the keys that it publishes."""

import asyncio
import json
import logging
import ssl
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit

import jwt

from services.common.errors import InvalidOption, SettingsError, Unauthenticated, Unavailable
from services.gateway.identity.caller import Caller, Role
from services.gateway.identity.tokens import checked_owner

_log = logging.getLogger(__name__)
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those with a public key; with a shared secret, whoever verifies could also sign."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_FETCH_S, _MAX_BYTES = 5.0, 1 << 20
# How old keys may be before they are looked at again, and how soon a token with an unknown key makes that happen.
_FRESH_S, _PAUSE_S = 600.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """Whom to believe."""

    issuer: str
    """Address of the identity provider, exactly as its tokens name it."""

    audiences: tuple[str, ...]
    """For whom tokens must be made, one of these."""

    jwks_url: str = ""
    """Where its keys are; empty: where its discovery document says."""

    ca: Path | None = None
    """PEM of who signs its certificate; None: the public authorities."""

    algorithms: tuple[str, ...] = ("RS256", "ES256")
    """Signatures that count."""

    subject_claim: str = "sub"
    """The claim that says who it is."""

    role_claim: str = ""
    """The claim, or a.path.to.it, that says what they may do; empty: everybody is a user."""

    admin_values: tuple[str, ...] = ()
    """Values of that claim that make an administrator."""

    leeway_s: float = 30.0
    """How far clocks may differ."""

    def __post_init__(self) -> None:
        for url in (self.issuer, *((self.jwks_url,) if self.jwks_url else ())):
            _check_url(url)
        if not self.audiences:
            raise ValueError("oidc_audience is empty; name for whom tokens must be made")
        unknown = [name for name in self.algorithms if name not in ALGORITHMS]
        if unknown or not self.algorithms:
            raise ValueError(f"oidc_algorithms has {', '.join(unknown) or 'none'}; there are {', '.join(ALGORITHMS)}")


class OidcTokens:
    """Who may come in by a provider's tokens."""

    def __init__(self, settings: OidcSettings) -> None:
        """Raises SettingsError: the CA file can't be used."""
        self._settings = settings
        self._keys = ProviderKeys(settings)

    async def identify(self, token: str) -> Caller | None:
        """Whose token it is; None: it is none of this kind.

        Raises:
            Unauthenticated: it can't be believed. Unavailable: the provider's keys can't be had.
        """
        header = _header(token)
        if header is None:
            return None
        algorithm = str(header.get("alg", ""))
        if algorithm not in self._settings.algorithms:
            raise Unauthenticated(f"The token is signed by {algorithm[:16]!r}, which is not accepted here.")
        key = await self._keys.find(header.get("kid"), algorithm)
        if key is None:
            raise Unauthenticated("The token is signed with a key that the identity provider doesn't have.")
        return _caller(self._claims(token, key, algorithm), self._settings)

    def _claims(self, token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token, key, algorithms=[algorithm], audience=self._settings.audiences, issuer=self._settings.issuer,
                leeway=self._settings.leeway_s, options={"require": ["exp", "iss", "aud"]},
            )  # fmt: skip
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("The token has expired; sign in again.") from error
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            # The library's words name claims and keys, never the token.
            raise Unauthenticated(f"The token can't be believed: {error}.") from error


class _Key(NamedTuple):
    key: Any
    algorithms: frozenset[str]


class ProviderKeys:
    """The keys that a provider publishes, fetched in threads; when it is away, those that are known stay."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._context = _tls_context(settings.ca)
        self._keys: dict[str, _Key] = {}
        self._fetched_at = self._tried_at = -_FRESH_S
        self._fetching = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def find(self, key_id: Any, algorithm: str) -> Any:
        """The key of this id for an algorithm, or the only one where a token names none; None: there is none.

        Raises:
            Unavailable: none is known, and the provider can't be reached.
        """
        found = self._find(key_id, algorithm)
        if found is None:
            await self._fetch()
            found = self._find(key_id, algorithm)
        elif time.monotonic() - self._fetched_at > _FRESH_S and (self._refreshing is None or self._refreshing.done()):
            # What a key was withdrawn for must end; nobody waits for that.
            self._refreshing = asyncio.create_task(self._fetch())
        if found is None and not self._keys:
            raise Unavailable("The identity provider's keys can't be had now; try again in a moment.", retry_after_s=_PAUSE_S)
        return found

    def _find(self, key_id: Any, algorithm: str) -> Any:
        fitting = {name: key for name, key in self._keys.items() if algorithm in key.algorithms}
        if key_id is None:
            return next(iter(fitting.values())).key if len(fitting) == 1 else None
        key = fitting.get(str(key_id))
        return key.key if key else None

    async def _fetch(self) -> None:
        """Look for newer keys, unless somebody just did."""
        async with self._fetching:
            if time.monotonic() - self._tried_at < _PAUSE_S:
                return
            self._tried_at = time.monotonic()
            try:
                self._keys = _signing_keys(await asyncio.to_thread(self._published))
                self._fetched_at = time.monotonic()
            except (OSError, ValueError, jwt.PyJWTError) as error:
                _log.warning("the identity provider's keys can't be read, known ones stay", extra={"why": str(error)})

    def _published(self) -> Mapping[str, Any]:
        url = self._settings.jwks_url or self._discovered()
        return _json(url, self._context)

    def _discovered(self) -> str:
        document = _json(f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration", self._context)
        if document.get("issuer") != self._settings.issuer:
            raise ValueError(f"the provider calls itself {document.get('issuer')!r}, not {self._settings.issuer!r}")
        url = str(document.get("jwks_uri", ""))
        _check_url(url)
        return url


def _caller(claims: Mapping[str, Any], settings: OidcSettings) -> Caller:
    subject = claims.get(settings.subject_claim)
    if not isinstance(subject, str):
        raise Unauthenticated(f"The token doesn't say who it is for; it has no claim {settings.subject_claim}.")
    try:
        checked_owner(subject)
    except InvalidOption as error:
        raise Unauthenticated(error.message) from error
    values: Any = claims
    for name in settings.role_claim.split(".") if settings.role_claim else ():
        values = values.get(name) if isinstance(values, Mapping) else None
    given = values if isinstance(values, list) else [values]
    is_admin = bool(settings.role_claim) and any(value in settings.admin_values for value in given)
    return Caller(subject=subject, role=Role.ADMIN if is_admin else Role.USER)


def _header(token: str) -> Mapping[str, Any] | None:
    if token.count(".") != 2:
        return None
    try:
        return jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        return None


def _signing_keys(published: Mapping[str, Any]) -> dict[str, _Key]:
    found: dict[str, _Key] = {}
    listed = published.get("keys")
    for number, entry in enumerate(listed if isinstance(listed, list) else ()):
        # Shared secrets are no keys to publish, and keys for encryption sign nothing.
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
            continue
        try:
            parsed = jwt.PyJWK(entry)
            found[str(entry.get("kid", f"key {number}"))] = _Key(parsed.key, _algorithms(entry, parsed))
        except jwt.PyJWTError as error:
            _log.warning("a key of the identity provider can't be used", extra={"why": str(error)})
    if not found:
        raise ValueError("the provider publishes no key that can verify a signature")
    return found


def _algorithms(entry: Mapping[str, Any], parsed: jwt.PyJWK) -> frozenset[str]:
    if entry.get("alg") or entry["kty"] != "RSA":
        return frozenset({parsed.algorithm_name})
    return frozenset(name for name in ALGORITHMS if name[:2] in ("RS", "PS"))


def _json(url: str, context: ssl.SSLContext) -> Mapping[str, Any]:
    """What is at an address of the operator's own choice. Blocking. Raises OSError, ValueError."""
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=_FETCH_S) as answer:
            data = answer.read(_MAX_BYTES)
    except URLError as error:
        raise OSError(f"{url}: {error.reason if hasattr(error, 'reason') else error}") from error
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"{url} has no JSON object")
    return found


def _tls_context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{ca} can't be used as the identity provider's CA file: {error.strerror or error}.") from error


def _check_url(url: str) -> None:
    """Raises ValueError: keys that came without TLS could be anybody's."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError(f"{url!r} must begin with https://")
