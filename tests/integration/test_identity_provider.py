"""A real gateway that believes an identity provider."""

from pathlib import Path

import pytest

from services.common.client import GatewayClient
from services.common.errors import Unauthenticated
from services.common.login import Credentials
from tests.integration.processes import gateway, running
from tests.unit.gateway.identity.provider import AUDIENCE, running_provider

pytestmark = pytest.mark.integration


async def test_people_come_in_with_tokens_of_their_identity_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with running_provider() as provider:
        for name, value in (
            ("ISSUER", provider.issuer), ("AUDIENCE", AUDIENCE), ("SUBJECT_CLAIM", "email"),
            ("ROLE_CLAIM", "groups"), ("ADMIN_VALUES", "video-admins"),
        ):  # fmt: skip
            monkeypatch.setenv(f"SEEDVR2_IDENTITY_OIDC_{name}", value)
        process = gateway(tmp_path, "127.0.0.1:1")
        tokens = {
            "alice@example.com": provider.token(email="alice@example.com"),
            "root@example.com": provider.token(email="root@example.com", groups=["video-admins"]),
            "": provider.token(email="alice@example.com", exp=1),
        }
        async with running(process):
            for subject, role in (("alice@example.com", "user"), ("root@example.com", "admin")):
                async with _client(process.address, tokens[subject]) as client:
                    told = await client.caller()
                    assert (told.subject, told.role) == (subject, role)
            async with _client(process.address, tokens[""]) as client:
                with pytest.raises(Unauthenticated, match="has expired; sign in again"):
                    await client.caller()
        assert not any(token.rpartition(".")[2] in process.log for token in tokens.values())


def _client(address: str, token: str) -> GatewayClient:
    return GatewayClient(address, timeout_s=10, login=lambda: Credentials(token=token))
