import json

import pytest

from services.cli.command import run
from services.gateway.identity.caller import Role
from services.gateway.identity.tokens import parse_tokens


def test_a_token_comes_with_the_line_that_lets_it_in(capsys: pytest.CaptureFixture[str]):
    assert run(["tokens", "create", "alice@example.com", "--role", "admin", "--days", "30", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    (entry,) = parse_tokens(made["line"].encode())
    assert (entry.subject, entry.role) == ("alice@example.com", Role.ADMIN)
    assert entry.expires_at is not None
    assert made["token"] not in made["line"]


def test_standard_output_has_the_token_alone_so_that_it_can_go_into_a_file(capsys: pytest.CaptureFixture[str]):
    assert run(["tokens", "create", "alice"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("sv2_")
    assert said.out.count("\n") == 1
    assert parse_tokens(said.err.splitlines()[-1].encode())[0].role is Role.USER


def test_a_subject_that_cannot_be_one_is_told(capsys: pytest.CaptureFixture[str]):
    assert run(["tokens", "create", "two words"]) == 1
    assert "without spaces" in capsys.readouterr().err
