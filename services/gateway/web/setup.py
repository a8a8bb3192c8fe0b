"""From the web's settings to what they make."""

from pathlib import Path

from services.common.metrics import GatewayMetrics
from services.common.watched import Watched
from services.gateway.store.base import Store
from services.gateway.web.addresses import AddressGuard, parse_networks
from services.gateway.web.client import WebClient, tls_context
from services.gateway.web.settings import WebSettings
from services.gateway.webhooks.deliverer import Look, Note, Webhooks, WebhookSettings
from services.gateway.webhooks.signing import parse_secrets

_HOUR_S = 3600.0


def make_web_client(settings: WebSettings) -> WebClient:
    """Raises SettingsError where a file can't be used."""
    guard = AddressGuard(parse_networks(settings.allow_networks))
    tls = tls_context(settings.ca_file)
    return WebClient(guard, tls=tls, http=settings.allow_http, timeout_s=settings.timeout_s)


def make_webhooks(
    settings: WebSettings, *, store: Store, look: Look, note: Note, client: WebClient, poll_s: float, metrics: GatewayMetrics
) -> Webhooks | None:
    """None where there is no secret to sign with. Raises SettingsError where its file can't be used."""
    if not settings.webhook_secret_file:
        return None
    return Webhooks(
        store=store, look=look, note=note, web=client, metrics=metrics,
        secrets=Watched([Path(settings.webhook_secret_file)], parse_secrets),
        settings=WebhookSettings(
            give_up_s=settings.webhook_hours * _HOUR_S, first_s=settings.webhook_first_s, limit_s=2 * settings.timeout_s,
            poll_s=poll_s,
        ),
    )  # fmt: skip
