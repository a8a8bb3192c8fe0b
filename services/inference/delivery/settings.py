"""Settings of model delivery, ``SEEDVR2_MODELS_…`` in the environment, and the token, which is in none of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from services.common.errors import SettingsError
from services.common.settings import setting
from services.inference.model_files import DEFAULT_DIRECTORY

PREFIX = "SEEDVR2_MODELS"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105  the name of a variable, not a token

_TOKEN_START = "hf_"  # noqa: S105  how tokens of the public hub begin
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """What delivery needs to know; each field is a setting."""

    directory: str = setting(
        "", f"directory with a directory of files per model, usually a volume that pods share; empty: {DEFAULT_DIRECTORY}"
    )
    endpoint: str = setting(
        "", "address of the hub or of a mirror, for example https://hub.example; empty: HF_ENDPOINT, else the public hub"
    )
    revision: str = setting("", "branch, tag or, best, commit of the repository that has the transformer; empty: the newest")
    token_file: str = setting("", f"file with the hub's access token; empty: {TOKEN_VARIABLE}, else none")
    offline: bool = setting(False, "true: never ask the network; what is not on the volume is missing")
    official: bool = setting(False, "true: the .pth files of the model's authors instead of the fp16 safetensors")
    convert: bool = setting(
        True,
        "true: write what was downloaded anew as bf16 safetensors, so that workers start faster; false: keep it as published, "
        "for workers that compute in float32 or float16",
    )
    text_embedding: str = setting(
        "",
        "where pos_emb.pt is: a mounted file, or owner/name[@revision][:file] on the hub; empty: where the catalogue expects it",
    )
    timeout_s: float = setting(20.0, "seconds within which the hub must accept a connection and answer a question about a file")
    stall_s: float = setting(30.0, "seconds after which a transfer that stands still, or nearly, is cut and resumed")
    slowest_bytes_s: int = setting(1024, "bytes a second below which a transfer counts as standing still")
    tries: int = setting(8, "tries in a row that bring nothing before a download is given up")
    pause_s: float = setting(1.0, "seconds before the second try; doubled before each further one")
    longest_pause_s: float = setting(60.0, "seconds that a pause between tries never exceeds, unless the hub asks for more")
    min_free_bytes: int = setting(256 << 20, "bytes of the volume that a download leaves free")

    def __post_init__(self) -> None:
        if self.endpoint:
            check_endpoint(self.endpoint)
        if self.timeout_s <= 0 or self.stall_s <= 0:
            raise ValueError("timeout_s and stall_s must be above 0")
        if self.tries < 1 or self.slowest_bytes_s < 0 or self.pause_s < 0 or self.min_free_bytes < 0:
            raise ValueError("tries must be at least 1; slowest_bytes_s, pause_s and min_free_bytes at least 0")


def check_endpoint(endpoint: str) -> None:
    """Raise ValueError for what is no address of a hub."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("endpoint must be an address like https://hub.example")
    if parts.username or parts.password:
        raise ValueError("endpoint must not hold a password; the token has a file of its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A secret and where it came from. Its text shows the origin only."""

    secret: str
    """What is sent."""

    origin: str
    """For people: the file or the variable."""

    def __repr__(self) -> str:
        return f"Token(from {self.origin})"


def read_token(token_file: str, environment: Mapping[str, str]) -> Token | None:
    """The hub's access token: from ``token_file``, else from the environment; None where there is none.

    Raises:
        SettingsError: the file can't be read, or what was found can't be a token. The text never holds it.
    """
    if token_file:
        return _checked(_text_of(token_file), token_file)
    secret = environment.get(TOKEN_VARIABLE, "").strip()
    return _checked(secret, TOKEN_VARIABLE) if secret else None


def _text_of(token_file: str) -> str:
    if token_file.startswith(_TOKEN_START):
        raise SettingsError("token_file must name a file that holds the token, not be the token.", field="token_file")
    try:
        return Path(token_file).read_text(encoding="ascii").strip()
    except OSError as error:
        raise SettingsError(f"The token file {token_file} can't be read: {error.strerror}.", field="token_file") from error
    except UnicodeDecodeError:
        # Without the cause: its text quotes the file.
        raise SettingsError(f"{token_file} holds no access token: it is not plain text.", field="token_file") from None


def _checked(secret: str, origin: str) -> Token:
    if not _TOKEN.fullmatch(secret):
        raise SettingsError(f"{origin} holds no access token: it must be one word on one line.", field="token_file")
    return Token(secret=secret, origin=origin)
