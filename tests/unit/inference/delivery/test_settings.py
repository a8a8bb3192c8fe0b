"""Settings of model delivery, and the token."""

from pathlib import Path

import pytest

from services.common.errors import SettingsError
from services.common.settings import read_settings
from services.inference.delivery.settings import PREFIX, DeliverySettings, read_token


def test_every_setting_is_read_from_the_environment():
    environment = {"SEEDVR2_MODELS_DIRECTORY": "/models", "SEEDVR2_MODELS_OFFLINE": "true", "SEEDVR2_MODELS_TRIES": "3"}
    settings = read_settings(DeliverySettings, PREFIX, environment)
    assert (settings.directory, settings.offline, settings.tries) == ("/models", True, 3)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ENDPOINT", "hub.example", "must be an address like"),
        ("ENDPOINT", "ftp://hub.example", "must be an address like"),
        ("ENDPOINT", "https://name:secret@hub.example", "must not hold a password"),
        ("STALL_S", "0", "must be above 0"),
        ("TRIES", "0", "at least 1"),
        ("TOKEN", "hf_x", "is not a setting"),
    ],
)
def test_a_wrong_setting_is_refused_without_repeating_a_secret(name: str, value: str, words: str):
    with pytest.raises(SettingsError, match=words) as error:
        read_settings(DeliverySettings, PREFIX, {f"SEEDVR2_MODELS_{name}": value})
    assert "secret" not in str(error.value)


def test_the_token_file_goes_before_the_variable(tmp_path: Path):
    (tmp_path / "token").write_text("  hf_file\n")
    token = read_token(str(tmp_path / "token"), {"HF_TOKEN": "hf_variable"})
    assert token is not None
    assert token.secret == "hf_file"


def test_the_variable_is_used_where_no_file_is_named():
    token = read_token("", {"HF_TOKEN": "hf_variable"})
    assert token is not None
    assert (token.secret, token.origin) == ("hf_variable", "HF_TOKEN")
    assert read_token("", {}) is None
    assert read_token("", {"HF_TOKEN": " "}) is None


def test_a_token_shows_its_origin_only():
    assert repr(read_token("", {"HF_TOKEN": "hf_variable"})) == "Token(from HF_TOKEN)"


@pytest.mark.parametrize("content", [b"", b"hf_a\nhf_b", b"hf_a hf_b", b"hf_\xc3\xa4"], ids=["empty", "lines", "words", "umlaut"])
def test_what_can_not_be_a_token_is_refused_without_being_shown(tmp_path: Path, content: bytes):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError, match="holds no access token") as error:
        read_token(str(tmp_path / "token"), {})
    assert "hf_" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SettingsError, match="token can't be read: No such file"):
        read_token(str(tmp_path / "token"), {})


def test_a_token_in_the_place_of_its_file_is_not_shown():
    with pytest.raises(SettingsError, match="must name a file") as error:
        read_token("hf_very_secret", {})
    assert "hf_very_secret" not in str(error.value)
