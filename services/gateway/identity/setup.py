"""The door as the settings want it."""

import logging
from pathlib import Path

from services.common.addresses import parse_networks
from services.common.errors import SettingsError
from services.common.metrics import GatewayMetrics
from services.gateway.identity.attempts import FailedLogins
from services.gateway.identity.audit import Audit
from services.gateway.identity.door import Authenticator, Door
from services.gateway.identity.interceptor import CallerInterceptor
from services.gateway.identity.oidc import OidcTokens
from services.gateway.identity.settings import IdentitySettings
from services.gateway.identity.tokens import TokenFile

_log = logging.getLogger(__name__)
_WINDOW_S = 60.0
_LOOPBACK = ("127.", "localhost:", "[::1]:")


def make_door(settings: IdentitySettings, address: str, metrics: GatewayMetrics) -> Door:
    """Who may come in; ``address`` is where the gateway listens. Raises SettingsError: a file can't be used."""
    authenticators: list[Authenticator] = []
    if settings.token_file:
        authenticators.append(TokenFile(Path(settings.token_file)))
    provider = settings.oidc()
    if provider:
        authenticators.append(OidcTokens(provider))
    if not authenticators and not address.startswith(_LOOPBACK):
        _log.warning(
            "everybody who reaches this gateway may do everything: neither a token file nor an identity provider is set",
            extra={"address": address},
        )
    failures = FailedLogins(per_address=settings.failed_logins, in_all=settings.failed_logins_in_all, window_s=_WINDOW_S)
    return Door(authenticators, failures, _audit(settings), on_refusal=lambda reason: metrics.logins_refused.labels(reason).inc())


def make_interceptor(settings: IdentitySettings, door: Door) -> CallerInterceptor:
    """The door for calls by gRPC."""
    return CallerInterceptor(door, parse_networks(settings.trusted_proxies))


def _audit(settings: IdentitySettings) -> Audit:
    try:
        return Audit(Path(settings.audit_file) if settings.audit_file else None)
    except OSError as error:
        raise SettingsError(f"The audit file {settings.audit_file} can't be written: {error.strerror}.") from error
