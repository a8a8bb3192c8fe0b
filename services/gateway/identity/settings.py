"""Settings of who may do what, ``SEEDVR2_IDENTITY_…`` in the gateway's environment."""

from dataclasses import dataclass
from pathlib import Path

from services.common.addresses import parse_networks
from services.common.settings import setting
from services.gateway.identity.oidc import OidcSettings

PREFIX = "SEEDVR2_IDENTITY"
"""Of these settings in the environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Whom the gateway lets in; each field is a setting."""

    token_file: str = setting("", "file that says whose tokens there are, a line each (`seedvr2 tokens create`); empty: none")
    oidc_issuer: str = setting("", "https address of an OpenID Connect provider whose tokens count; empty: none")
    oidc_audience: tuple[str, ...] = setting((), "for whom its tokens must be made: one of these")
    oidc_jwks_url: str = setting("", "https address of its keys; empty: where its discovery document says")
    oidc_ca_file: str = setting("", "PEM file of who signs its certificate; empty: the public authorities")
    oidc_algorithms: tuple[str, ...] = setting(("RS256", "ES256"), "signatures that count")
    oidc_subject_claim: str = setting("sub", "claim that says who it is; choose one that nobody can set for themselves")
    oidc_role_claim: str = setting("", "claim, or a.path.to.it, that says what they may do; empty: everybody is a user")
    oidc_admin_values: tuple[str, ...] = setting((), "values of that claim that make an administrator")
    oidc_leeway_s: float = setting(30.0, "seconds that clocks may differ")
    trusted_proxies: tuple[str, ...] = setting(
        (), "addresses and networks, as 10.0.0.0/8, of proxies (the web page's server, too) whose x-forwarded-for is believed"
    )
    failed_logins: int = setting(20, "wrong tokens from one address within a minute; then new ones are not looked at")
    failed_logins_in_all: int = setting(1000, "the same from everywhere")
    quota_file: str = setting("", "JSON file that says how much callers may use (docs/security.md); empty: as much as they want")
    audit_file: str = setting("", "file that gets a line for who did what; empty: among the other lines of the log")

    def __post_init__(self) -> None:
        for name in ("failed_logins", "failed_logins_in_all"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        parse_networks(self.trusted_proxies)
        self.oidc()

    def oidc(self) -> OidcSettings | None:
        """The identity provider to believe; None: none. Raises ValueError."""
        if not self.oidc_issuer:
            return None
        return OidcSettings(
            issuer=self.oidc_issuer, audiences=self.oidc_audience, jwks_url=self.oidc_jwks_url,
            ca=Path(self.oidc_ca_file) if self.oidc_ca_file else None, algorithms=self.oidc_algorithms,
            subject_claim=self.oidc_subject_claim, role_claim=self.oidc_role_claim, admin_values=self.oidc_admin_values,
            leeway_s=self.oidc_leeway_s,
        )  # fmt: skip
