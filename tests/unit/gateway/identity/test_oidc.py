import asyncio
import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.common.errors import Unauthenticated, Unavailable
from services.gateway.identity import oidc
from services.gateway.identity.caller import Caller, Role
from services.gateway.identity.oidc import OidcSettings, OidcTokens
from tests.unit.gateway.identity.provider import AUDIENCE, Provider, running_provider


@pytest.fixture(scope="module")
def _provider() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    for name in list(_provider.keys)[1:]:
        del _provider.keys[name]
    del _provider.published[1:]
    _provider.requests, _provider.names = 0, _provider.issuer
    return _provider


@pytest.fixture
def settings(provider: Provider) -> OidcSettings:
    return OidcSettings(
        issuer=provider.issuer, audiences=(AUDIENCE, "other"), role_claim="realm_access.roles", admin_values=("seedvr2-admin",)
    )


@pytest.fixture
def tokens(settings: OidcSettings) -> OidcTokens:
    return OidcTokens(settings)


async def test_a_token_of_the_provider_lets_its_subject_in(provider: Provider, tokens: OidcTokens):
    assert await tokens.identify(provider.token()) == Caller(subject="alice", role=Role.USER)
    assert await tokens.identify(provider.token(sub="bob", aud=["x", "other"])) == Caller(subject="bob", role=Role.USER)
    assert provider.requests == 2, "discovery and keys, once"


async def test_what_is_no_such_token_is_somebody_elses_business(provider: Provider, tokens: OidcTokens):
    for token in ("sv2_abc", "a.b.c", "a.b", "...."):
        assert await tokens.identify(token) is None
    assert provider.requests == 0


@pytest.mark.parametrize(
    ("access", "role"),
    [
        ({"roles": ["user", "seedvr2-admin"]}, Role.ADMIN),
        ({"roles": "seedvr2-admin"}, Role.ADMIN),
        ({"roles": ["user"]}, Role.USER),
        ({"roles": 7}, Role.USER),
        ("seedvr2-admin", Role.USER),
    ],
    ids=str,
)
async def test_a_claim_can_make_an_administrator(provider: Provider, tokens: OidcTokens, access: Any, role: Role):
    assert await tokens.identify(provider.token(realm_access=access)) == Caller(subject="alice", role=role)


async def test_another_claim_can_say_who_it_is(provider: Provider, settings: OidcSettings):
    tokens = OidcTokens(replace(settings, subject_claim="email"))
    caller = await tokens.identify(provider.token(email="alice@example.com"))
    assert caller == Caller(subject="alice@example.com", role=Role.USER)
    with pytest.raises(Unauthenticated, match="no claim email"):
        await tokens.identify(provider.token())


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": int(time.time()) - 3600}, "has expired"),
        ({"nbf": int(time.time()) + 3600}, "can't be believed"),
        ({"aud": "somebody else"}, "can't be believed"),
        ({"iss": "https://elsewhere.example"}, "can't be believed"),
        ({"exp": None}, "can't be believed"),
        ({"aud": None}, "can't be believed"),
        ({"sub": "two words"}, "without spaces"),
        ({"sub": "local"}, "choose another subject"),
    ],
    ids=["expired", "not yet", "for another", "from another", "for ever", "for nobody", "two words", "local"],
)
async def test_a_token_that_is_not_for_us_is_refused(provider: Provider, tokens: OidcTokens, claims: dict[str, Any], words: str):
    token = provider.token(**claims)
    with pytest.raises(Unauthenticated, match=words) as caught:
        await tokens.identify(token)
    assert token not in caught.value.message


async def test_a_clock_that_is_a_little_off_is_forgiven(provider: Provider, tokens: OidcTokens):
    assert await tokens.identify(provider.token(exp=int(time.time()) - 10, nbf=int(time.time()) + 10))


async def test_a_token_that_somebody_else_signed_is_refused(provider: Provider, tokens: OidcTokens):
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(Unauthenticated, match="Signature verification failed"):
        await tokens.identify(provider.token(key=stranger))


async def test_a_changed_token_is_refused(provider: Provider, tokens: OidcTokens):
    head, body, signature = provider.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "root"}).encode()).decode().rstrip("=")
    with pytest.raises(Unauthenticated):
        await tokens.identify(f"{head}.{forged}.{signature}")


async def test_a_signature_without_a_key_or_with_a_published_one_as_a_secret_is_refused(provider: Provider, tokens: OidcTokens):
    claims = {"iss": provider.issuer, "aud": AUDIENCE, "sub": "root", "exp": int(time.time()) + 60}
    with pytest.raises(Unauthenticated, match="'none', which is not accepted"):
        await tokens.identify(jwt.encode(claims, None, "none", headers={"kid": "first"}))
    secret = provider.published[0]["n"]
    with pytest.raises(Unauthenticated, match="'HS256', which is not accepted"):
        await tokens.identify(jwt.encode(claims, secret, "HS256", headers={"kid": "first"}))


async def test_a_key_is_good_for_its_own_algorithm_only(provider: Provider, settings: OidcSettings):
    tokens = OidcTokens(replace(settings, algorithms=("RS256", "PS256", "ES256")))
    provider.add_key("told", rsa.generate_private_key(public_exponent=65537, key_size=2048), alg="RS256")
    assert await tokens.identify(provider.token(key_id="told"))
    with pytest.raises(Unauthenticated, match="doesn't have"):
        await tokens.identify(provider.token(key_id="told", algorithm="PS256"))
    assert await tokens.identify(provider.token(key_id="first", algorithm="PS256"))


async def test_a_new_key_is_found_and_asked_for_only_now_and_then(
    provider: Provider, tokens: OidcTokens, monkeypatch: pytest.MonkeyPatch
):
    assert await tokens.identify(provider.token())
    provider.add_key("second", ec.generate_private_key(ec.SECP256R1()))
    token = provider.token()
    with pytest.raises(Unauthenticated, match="doesn't have"):
        await tokens.identify(token)
    asked = provider.requests
    monkeypatch.setattr(oidc, "_PAUSE_S", 0.0)
    assert await tokens.identify(token)
    assert provider.requests == asked + 2


async def test_a_provider_that_is_away_does_not_take_its_keys_along(
    provider: Provider, tokens: OidcTokens, monkeypatch: pytest.MonkeyPatch
):
    assert await tokens.identify(provider.token())
    monkeypatch.setattr(oidc, "_PAUSE_S", 0.0)
    monkeypatch.setattr(oidc, "_FRESH_S", 0.0)
    provider.names = "https://elsewhere.example"
    for _ in range(3):
        assert await tokens.identify(provider.token())
        await asyncio.sleep(0.02)
    with pytest.raises(Unauthenticated):
        await tokens.identify(provider.token(headers={"kid": "unknown"}))


async def test_without_any_keys_nobody_can_say_who_calls(provider: Provider, settings: OidcSettings):
    tokens = OidcTokens(replace(settings, jwks_url="http://127.0.0.1:1/keys"))
    for _ in range(2):
        with pytest.raises(Unavailable, match="keys can't be had now"):
            await tokens.identify(provider.token())


async def test_a_provider_that_calls_itself_otherwise_is_not_believed(
    provider: Provider, tokens: OidcTokens, caplog: pytest.LogCaptureFixture
):
    provider.names = "https://elsewhere.example"
    with pytest.raises(Unavailable):
        await tokens.identify(provider.token())
    assert "calls itself" in caplog.records[-1].why


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"issuer": "http://provider.example"}, "must begin with https"),
        ({"jwks_url": "ftp://x"}, "must begin with https"),
        ({"audiences": ()}, "oidc_audience is empty"),
        ({"algorithms": ("HS256",)}, "oidc_algorithms has HS256"),
        ({"algorithms": ()}, "oidc_algorithms has none"),
    ],
)
def test_settings_that_would_let_anybody_in_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        OidcSettings(**{"issuer": "https://provider.example", "audiences": ("x",), **wrong})
