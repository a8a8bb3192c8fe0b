import datetime
from pathlib import Path

import pytest

from services.common.errors import InvalidOption, SettingsError, Unauthenticated
from services.gateway.identity.caller import Caller, Role
from services.gateway.identity.tokens import PREFIX, TokenFile, new_token, parse_tokens, token_line

PAST = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
FUTURE = datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)


def _replace(path: Path, text: str) -> None:
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.replace(path)


async def test_a_token_lets_in_whoever_its_line_names(tmp_path: Path):
    alice, root = new_token(), new_token()
    path = tmp_path / "tokens"
    lines = [token_line("alice@example.com", Role.USER, alice), token_line("root", Role.ADMIN, root, FUTURE)]
    path.write_text("\n".join(["# who may come in", "", *lines]))
    tokens = TokenFile(path)
    assert await tokens.identify(alice) == Caller(subject="alice@example.com", role=Role.USER)
    assert await tokens.identify(root) == Caller(subject="root", role=Role.ADMIN)
    assert await tokens.identify(new_token()) is None
    assert alice not in path.read_text()


async def test_a_line_that_is_taken_out_shuts_its_token_out_at_once(tmp_path: Path):
    alice, path = new_token(), tmp_path / "tokens"
    path.write_text(token_line("alice", Role.USER, alice))
    tokens = TokenFile(path)
    assert await tokens.identify(alice)
    _replace(path, "")
    assert await tokens.identify(alice) is None


async def test_a_broken_file_leaves_everybody_in_that_was(tmp_path: Path):
    alice, path = new_token(), tmp_path / "tokens"
    path.write_text(token_line("alice", Role.USER, alice))
    tokens = TokenFile(path)
    _replace(path, "nonsense")
    assert await tokens.identify(alice)


async def test_an_expired_token_is_refused_in_words(tmp_path: Path):
    alice, path = new_token(), tmp_path / "tokens"
    path.write_text(token_line("alice", Role.USER, alice, PAST))
    with pytest.raises(Unauthenticated, match="expired on 2001-01-01"):
        await TokenFile(path).identify(alice)


def test_no_two_tokens_are_equal_and_all_can_be_known_by_their_beginning():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith(PREFIX) and len(token) == len(PREFIX) + 43 for token in tokens)


HASH = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    "line",
    ["alice", f"alice boss {HASH}", "alice user sha256:abcd", f"alice user {HASH} until=now", f"alice user {HASH} expires=soon",
     f"local user {HASH}", "alice user sha256:" + "zz" * 32, f"a user {HASH} expires=2999-01-01 x"],
)  # fmt: skip
def test_a_wrong_line_is_told_by_its_number(line: str):
    with pytest.raises(ValueError, match="line 2 is not SUBJECT ROLE sha256:HEX"):
        parse_tokens(f"# first\n{line}\n".encode())


def test_a_token_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="line 2 has a token that an earlier line has"):
        parse_tokens(f"alice user {HASH}\nbob user {HASH}\n".encode())


def test_nobody_can_have_the_name_of_callers_without_authentication():
    with pytest.raises(InvalidOption, match="choose another subject"):
        token_line("local", Role.USER, new_token())


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path):
    with pytest.raises(SettingsError, match="can't be read"):
        TokenFile(tmp_path / "nowhere")
