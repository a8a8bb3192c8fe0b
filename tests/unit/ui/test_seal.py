import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from services.common.errors import SettingsError
from services.ui.seal import Seal, SignedIn

HELD = SignedIn("sv2_secret", "alice")


def test_a_cookie_holds_a_token_that_nobody_else_can_read():
    seal = Seal("", 3600)
    cookie = seal.close(HELD)
    assert "secret" not in cookie
    assert seal.open(cookie) == HELD


@pytest.mark.parametrize(
    "cookie",
    ["", "nonsense", "ü", Fernet(Fernet.generate_key()).encrypt(b"{}").decode()],
    ids=["nothing", "nonsense", "another letter", "another key"],
)
def test_what_is_not_from_here_is_nothing(cookie: str):
    assert Seal("", 3600).open(cookie) is None


def test_another_process_opens_a_cookie_only_with_the_same_key(tmp_path: Path):
    key = tmp_path / "key"
    key.write_text("k" * 48 + "\n")
    assert Seal(str(key), 3600).open(Seal(str(key), 3600).close(HELD)) == HELD
    assert Seal("", 3600).open(Seal("", 3600).close(HELD)) is None


def test_a_cookie_ends_when_its_session_does():
    seal = Seal("", 60)
    old = seal._fernet().encrypt_at_time(b'["sv2_secret", "alice"]', int(time.time()) - 120).decode()
    assert seal.open(old) is None
    assert Seal("", 3600).open(old) is None


def test_a_key_that_is_too_short_stops_the_start(tmp_path: Path):
    (tmp_path / "key").write_text("short")
    with pytest.raises(SettingsError, match="at least 32 bytes"):
        Seal(str(tmp_path / "key"), 3600)
