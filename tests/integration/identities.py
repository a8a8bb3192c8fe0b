"""Callers of a gateway that wants tokens."""

from pathlib import Path
from typing import NamedTuple

from services.common.client import GatewayClient
from services.common.login import Credentials
from services.gateway.identity.caller import Role
from services.gateway.identity.tokens import new_token, token_line


class Identity(NamedTuple):
    """Somebody with a token."""

    subject: str
    role: Role
    token: str

    def client(self, address: str, subject: str = "") -> GatewayClient:
        """A client of a gateway; ``subject``: for whom it acts."""
        return GatewayClient(address, timeout_s=20, login=lambda: Credentials(token=self.token, subject=subject))


def identity(subject: str, role: Role = Role.USER) -> Identity:
    """Somebody with a new token."""
    return Identity(subject, role, new_token())


def token_file(path: Path, *identities: Identity) -> Path:
    """The file that lets them in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text("".join(token_line(*each) + "\n" for each in identities))
    draft.replace(path)
    return path
