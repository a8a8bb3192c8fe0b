from pathlib import Path

import pytest

from services.common.errors import InvalidOption, SettingsError
from services.common.login import Credentials, checked_subject, metadata_of, no_login, token_file_login


def test_a_call_carries_what_is_known_and_nothing_else():
    assert metadata_of(no_login()) == ()
    assert dict(metadata_of(Credentials(token="t", subject="s", address="192.0.2.1"))) == {
        "authorization": "Bearer t",
        "x-seedvr2-subject": "s",
        "x-forwarded-for": "192.0.2.1",
    }


def test_a_token_file_is_read_again_when_it_has_changed(tmp_path: Path):
    path = tmp_path / "token"
    path.write_text("first\n")
    login = token_file_login(path, "alice")
    assert login() == Credentials(token="first", subject="alice")
    draft = tmp_path / "draft"
    draft.write_text("second\n")
    draft.replace(path)
    assert login().token == "second"


@pytest.mark.parametrize("content", ["", "\n", "two words", "ümlaut"])
def test_a_file_that_holds_no_token_is_refused_without_showing_it(tmp_path: Path, content: str):
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(SettingsError, match="must hold one token") as caught:
        token_file_login(path)
    assert not content.strip() or content not in caught.value.message


@pytest.mark.parametrize("subject", ["", "two words", "ü", "a\nb", "x" * 201])
def test_what_cannot_name_somebody_is_refused(subject: str):
    with pytest.raises(InvalidOption):
        checked_subject(subject)
    assert checked_subject("alice@example.com") == "alice@example.com"
