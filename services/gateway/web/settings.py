"""Settings of what the gateway does on the web for users, ``SEEDVR2_WEB_…`` in the environment."""

from dataclasses import dataclass

from services.common.settings import setting
from services.gateway.web.addresses import parse_networks

PREFIX = "SEEDVR2_WEB"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """Where sources may be fetched from, and who may be told; without more, neither is offered."""

    sources: bool = setting(False, "true: a job's source may be an HTTPS URL, which the gateway fetches")
    source_hosts: tuple[str, ...] = setting((), "hosts of such URLs, for example cdn.example.com or *.example.com; empty: any")
    source_retry_s: float = setting(900.0, "seconds without a new byte after which a source is given up, and its job fails")
    source_max_s: float = setting(6 * 3600.0, "seconds in all that fetching a source may take")
    webhook_secret_file: str = setting(
        "", "file with the secret that webhooks are signed with, one a line while it is changed; empty: no webhooks"
    )
    webhook_hosts: tuple[str, ...] = setting((), "hosts of webhooks; empty: any")
    webhook_hours: float = setting(24.0, "hours for which a webhook that can't be delivered is tried again")
    webhook_first_s: float = setting(5.0, "seconds before it is tried a second time; later pauses are four times the one before")
    allow_http: bool = setting(False, "true: URLs without encryption will do, for tests and inside a network of one's own")
    allow_networks: tuple[str, ...] = setting(
        (),
        "networks that URLs may lead to beside the public internet, for example 10.1.0.0/16",
    )
    ca_file: str = setting("", "PEM file of authorities that are trusted beside the system's")
    timeout_s: float = setting(30.0, "seconds without a byte after which a connection is given up")

    def __post_init__(self) -> None:
        for name in ("source_retry_s", "source_max_s", "webhook_hours", "webhook_first_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        parse_networks(self.allow_networks)
