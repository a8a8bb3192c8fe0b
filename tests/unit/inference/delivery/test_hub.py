"""What the hub says, without a hub. With one: tests/integration/test_delivery.py."""

import email.utils
import time

import httpx2
import pytest

from services.common.errors import SettingsError
from services.inference.delivery.catalogue import SourceFile
from services.inference.delivery.hub import Hub, RemoteFile, asked_pause_s
from services.inference.delivery.settings import DeliverySettings, Token


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"resolvers";r=0;t=55'}, 55.0),
        ({"RateLimit": '"resolvers";r=3;t=55', "Retry-After": "2"}, 2.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_a_pause_is_asked_for_in_several_ways(headers: dict[str, str], pause_s: float | None):
    assert asked_pause_s(httpx2.Headers(headers)) == pause_s


def test_a_pause_can_be_asked_for_until_a_time_of_day():
    headers = httpx2.Headers({"Retry-After": email.utils.formatdate(time.time() + 100, usegmt=True)})
    assert asked_pause_s(headers) == pytest.approx(100, abs=5)


@pytest.mark.parametrize(
    ("endpoint", "token", "clear"),
    [
        ("http://mirror.example", True, True),
        ("http://mirror.example", False, False),
        ("https://mirror.example", True, False),
        ("http://127.0.0.1:8000", True, False),
    ],
)
def test_a_token_on_an_open_line_is_noticed(endpoint: str, token: bool, clear: bool):
    hub = Hub(DeliverySettings(endpoint=endpoint), Token(secret="hf_x", origin="a file") if token else None)
    assert hub.sends_token_in_clear is clear


@pytest.mark.parametrize(("etag", "sha256"), [("a" * 64, "a" * 64), ("a" * 40, ""), ("", "")])
def test_the_tag_of_a_large_file_is_its_hash(etag: str, sha256: str):
    assert RemoteFile(url="", commit="", etag=etag, size_bytes=0).sha256 == sha256


def test_what_is_no_repository_is_told_without_asking():
    hub = Hub(DeliverySettings(endpoint="http://127.0.0.1:1"), None)
    with pytest.raises(SettingsError, match="'not-a/repo/at-all' is not the name of a repository"):
        hub.describe(SourceFile(role="dit", repository="not-a/repo/at-all", file="d.st"))
