"""Settings of the web page's server, ``SEEDVR2_UI_…`` in the environment."""

import re
from dataclasses import dataclass

from services.common.settings import setting

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class UiSettings:
    """What the page needs to know; each field is a setting."""

    address: str = setting("127.0.0.1:7860", "host:port of the page; port 0 takes any free one")
    gateway_address: str = setting("127.0.0.1:50051", "host:port of the gateway, or grpcs://host:port")
    gateway_ca_file: str = setting("", "PEM file of who signs the gateway's certificate; empty: the public authorities")
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
        if self.max_upload_bytes < 1:
            raise ValueError(f"max_upload_bytes is {self.max_upload_bytes}; it must be at least 1")
        if self.max_piece_bytes < 1 << 16:
            raise ValueError(f"max_piece_bytes is {self.max_piece_bytes}; it must be at least {1 << 16}")
        if self.gateway_timeout_s <= 0 or self.drain_s < 0:
            raise ValueError("gateway_timeout_s must be above 0 and drain_s not below")
