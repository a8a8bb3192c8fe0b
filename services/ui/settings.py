"""Settings of the web page's server, ``SEEDVR2_UI_…`` in the environment."""

import re
from dataclasses import dataclass

from services.common.addresses import parse_networks
from services.common.rpc.tls import ChannelTls, channel_tls, server_tls
from services.common.settings import setting

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSettings:
    """What the page needs to know; each field is a setting."""

    address: str = setting("127.0.0.1:7860", "host:port of the page; port 0 takes any free one")
    hosts: tuple[str, ...] = setting(
        (), "names by which the page is asked for, besides addresses, where it listens on loopback: behind a proxy there; *: any"
    )
    tls_certificate_file: str = setting("", "PEM file of the certificate that browsers see; empty: no TLS")
    tls_key_file: str = setting("", "PEM file of its private key")
    gateway_address: str = setting("127.0.0.1:50051", "host:port of the gateway, or grpcs://host:port")
    gateway_ca_file: str = setting("", "PEM file of who signs the gateway's certificate; empty: the public authorities")
    gateway_certificate_file: str = setting(
        "", "PEM file of the certificate that the gateway is shown, where it wants one; empty: none"
    )
    gateway_key_file: str = setting("", "PEM file of its private key")
    gateway_tls_name: str = setting("", "name that the gateway's certificate carries; empty: the host of its address")
    user_header: str = setting(
        "", "header in which a proxy names whom it signed in, for example x-forwarded-user; empty: people sign in with a token"
    )
    trusted_proxies: tuple[str, ...] = setting((), "addresses and networks, as 10.0.0.0/8, of proxies whose headers are believed")
    token_file: str = setting("", "file with this server's own token, of the role delegate; with user_header only")
    session_s: float = setting(12 * 3600.0, "seconds after which people sign in again")
    session_key_file: str = setting("", "file with 32 random bytes or more that seals sign-in cookies; empty: new at each start")
    root_path: str = setting("", "path under which a proxy publishes the page, for example /seedvr2; empty at the top")
    max_upload_bytes: int = setting(20 * 10**9, "largest file that the page takes, in bytes; the gateway has its own limit")
    max_piece_bytes: int = setting(16 << 20, "most bytes of one upload request; the page sends pieces of a quarter of it")
    gateway_timeout_s: float = setting(20.0, "seconds after which a call to the gateway counts as failed")
    drain_s: float = setting(10.0, "seconds that open transfers have to end after SIGTERM")
    log_level: str = setting("INFO", "DEBUG, INFO, WARNING or ERROR")
    ready_file: str = setting("", "file that gets the real addresses as JSON once the page is served; empty: none")

    def __post_init__(self) -> None:
        if not _ROOT_PATH.fullmatch(self.root_path):
            raise ValueError(f"root_path {self.root_path!r} must be empty or like /seedvr2, without a slash at the end")
        server_tls(self.tls_certificate_file, self.tls_key_file, "")
        self.gateway_tls()
        parse_networks(self.trusted_proxies)
        if self.user_header and not self.trusted_proxies:
            raise ValueError("user_header needs trusted_proxies: from anybody else the header could name anybody")
        if self.token_file and not self.user_header:
            raise ValueError("token_file is for user_header; without it each visitor has a token of their own")
        if self.session_s < 60:
            raise ValueError(f"session_s is {self.session_s}; it must be at least 60")
        if self.max_upload_bytes < 1:
            raise ValueError(f"max_upload_bytes is {self.max_upload_bytes}; it must be at least 1")
        if self.max_piece_bytes < 1 << 16:
            raise ValueError(f"max_piece_bytes is {self.max_piece_bytes}; it must be at least {1 << 16}")
        if self.gateway_timeout_s <= 0 or self.drain_s < 0:
            raise ValueError("gateway_timeout_s must be above 0 and drain_s not below")

    def gateway_tls(self) -> ChannelTls | None:
        """Whom the page believes to be the gateway, and what it shows; None: nothing is said of that."""
        tls = channel_tls(self.gateway_ca_file, self.gateway_certificate_file, self.gateway_key_file, self.gateway_tls_name)
        if self.gateway_tls_name and tls is None:
            return ChannelTls(server_name=self.gateway_tls_name)
        return tls
