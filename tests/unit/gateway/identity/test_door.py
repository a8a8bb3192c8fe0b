import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.errors import InvalidOption, JobNotFound, LoginsLimited, PermissionDenied, Unauthenticated, Unavailable
from services.gateway.identity.attempts import FailedLogins
from services.gateway.identity.audit import Audit
from services.gateway.identity.caller import ANYBODY, Caller, Role, current_caller, owner_of
from services.gateway.identity.door import Door, Presented
from services.gateway.identity.tokens import TokenFile, new_token, token_line

ALICE, ROOT, PAGE, STRANGER = (new_token() for _ in range(4))


class Away:
    """A provider that can't be reached."""

    async def identify(self, token: str) -> Caller | None:
        raise Unavailable("The identity provider's keys can't be had now.")


@pytest.fixture
def audit_file(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def door(tmp_path: Path, audit_file: Path) -> Iterator[Door]:
    path = tmp_path / "tokens"
    lines = (("alice", Role.USER, ALICE), ("root", Role.ADMIN, ROOT), ("page", Role.DELEGATE, PAGE))
    path.write_text("".join(token_line(*line) + "\n" for line in lines))
    audit = Audit(audit_file)
    yield Door([TokenFile(path)], FailedLogins(per_address=3, in_all=100, window_s=60), audit)
    audit.close()


def _shows(token: str, subject: str = "", address: str = "192.0.2.1") -> Presented:
    return Presented(authorization=f"Bearer {token}" if token else "", subject=subject, address=address)


async def _call(door: Door, name: str, presented: Presented, target: str = "") -> Caller:
    async with door.call(name, presented) as record:
        record.target = target
        return current_caller()


def _lines(audit_file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in audit_file.read_text().splitlines()]


async def test_a_call_runs_in_the_name_of_whoever_makes_it(door: Door):
    caller = await _call(door, "GetJob", _shows(ALICE))
    assert (caller.subject, caller.role, caller.owner) == ("alice", Role.USER, owner_of("alice"))


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", f"Basic {ALICE}", ALICE, f"Bearer {ALICE} Bearer {ROOT}"],
    ids=["nothing", "word", "space", "scheme", "token", "two"],
)
async def test_whoever_shows_no_token_that_counts_is_not_let_in(door: Door, authorization: str):
    with pytest.raises(Unauthenticated):
        await _call(door, "GetJob", Presented(authorization=authorization, subject="", address="192.0.2.1"))


async def test_a_delegate_acts_for_whom_it_names_and_for_nobody_else(door: Door):
    caller = await _call(door, "CreateJob", _shows(PAGE, "bob"))
    assert (caller.subject, caller.role, caller.by and caller.by.subject) == ("bob", Role.USER, "page")
    with pytest.raises(PermissionDenied, match="name them in x-seedvr2-subject"):
        await _call(door, "ListJobs", _shows(PAGE))
    assert (await _call(door, "GetClusterStatus", _shows(PAGE))).role is Role.DELEGATE
    with pytest.raises(InvalidOption):
        await _call(door, "GetJob", _shows(PAGE, "local"))


async def test_an_administrator_may_act_for_somebody_with_a_users_rights(door: Door):
    caller = await _call(door, "GetJob", _shows(ROOT, "alice"))
    assert (caller.owner, caller.role) == (owner_of("alice"), Role.USER)
    assert (await _call(door, "GetJob", _shows(ROOT, "local"))).owner == "local"


async def test_a_user_acts_for_nobody_else(door: Door):
    with pytest.raises(PermissionDenied, match="acts for nobody but its own subject"):
        await _call(door, "GetJob", _shows(ALICE, "bob"))
    assert (await _call(door, "GetJob", _shows(ALICE, "alice"))).by is None


async def test_wrong_tokens_are_not_looked_at_any_more_after_a_while_but_known_ones_are(door: Door):
    await _call(door, "GetJob", _shows(ALICE))
    for _ in range(3):
        with pytest.raises(Unauthenticated, match="not known here"):
            await _call(door, "GetJob", _shows(STRANGER))
    for token in (STRANGER, ROOT):
        with pytest.raises(LoginsLimited) as caught:
            await _call(door, "GetJob", _shows(token))
        assert caught.value.retry_after_s
    assert (await _call(door, "GetJob", _shows(ALICE))).subject == "alice"
    assert (await _call(door, "GetJob", _shows(ROOT, address="192.0.2.2"))).subject == "root"


async def test_a_missing_token_is_no_wrong_one(door: Door):
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await _call(door, "GetJob", _shows(""))
    assert (await _call(door, "GetJob", _shows(ALICE))).subject == "alice"


async def test_nobody_is_blamed_while_the_provider_is_away(tmp_path: Path, audit_file: Path):
    door = Door([Away()], FailedLogins(per_address=1, in_all=1, window_s=60), Audit(audit_file))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await _call(door, "GetJob", _shows("a.b.c"))


async def test_without_authentication_everybody_is_the_same_caller_unless_they_act_for_somebody():
    door = Door([], FailedLogins(per_address=1, in_all=1, window_s=60), Audit(None))
    assert await _call(door, "GetJob", _shows("")) is ANYBODY
    assert await _call(door, "GetJob", _shows(STRANGER)) is ANYBODY
    assert (await _call(door, "GetJob", _shows("", "bob"))).owner == owner_of("bob")


async def test_what_changes_something_is_written_down_with_who_where_what_and_how_it_ended(door: Door, audit_file: Path):
    await _call(door, "CreateJob", _shows(PAGE, "bob"), "jobs/j1")
    await _call(door, "GetJob", _shows(ALICE), "jobs/j1")
    with pytest.raises(JobNotFound):
        async with door.call("DeleteJob", _shows(ALICE)) as record:
            record.target = "jobs/j2"
            raise JobNotFound("There is no job j2.")
    created, deleted = _lines(audit_file)
    assert created.items() >= {
        "call": "CreateJob", "target": "jobs/j1", "subject": "bob", "role": "user", "by_subject": "page", "by_role": "delegate",
        "address": "192.0.2.1", "outcome": "OK",
    }.items()  # fmt: skip
    assert deleted.items() >= {"call": "DeleteJob", "subject": "alice", "outcome": "NOT_FOUND", "reason": "JobNotFound"}.items()


async def test_reading_for_somebody_else_and_refusals_are_written_down_without_any_token(door: Door, audit_file: Path):
    await _call(door, "GetJob", _shows(ROOT, "alice"), "jobs/j1")
    for _ in range(4):
        with pytest.raises((Unauthenticated, LoginsLimited)):
            await _call(door, "GetJob", _shows(STRANGER))
    lines = _lines(audit_file)
    assert [line["outcome"] for line in lines] == ["OK", *["UNAUTHENTICATED"] * 3]
    assert lines[0]["by_subject"] == "root"
    text = audit_file.read_text()
    assert not any(token in text for token in (ALICE, ROOT, PAGE, STRANGER))


async def test_whoever_may_not_do_something_is_named_with_what_they_tried(door: Door, audit_file: Path):
    for presented in (_shows(ALICE, "bob"), _shows(PAGE)):
        with pytest.raises(PermissionDenied):
            await _call(door, "GetJob", presented)
    tried = [(line["subject"], line["role"], line["outcome"]) for line in _lines(audit_file)]
    assert tried == [("alice", "user", "PERMISSION_DENIED"), ("page", "delegate", "PERMISSION_DENIED")]


async def test_refusals_are_counted_by_their_reason():
    refused: list[str] = []
    door = Door([Away()], FailedLogins(per_address=1, in_all=1, window_s=60), Audit(None), on_refusal=refused.append)
    for presented in (_shows(""), _shows("a.b.c")):
        with pytest.raises((Unauthenticated, Unavailable)):
            await _call(door, "GetJob", presented)
    assert refused == ["TokenMissing", "Unavailable"]


async def test_whoever_shows_nothing_fills_no_disk(door: Door, audit_file: Path):
    with pytest.raises(Unauthenticated):
        await _call(door, "CreateJob", _shows(""))
    assert _lines(audit_file) == []


async def test_without_a_file_the_lines_go_where_all_lines_go(caplog: pytest.LogCaptureFixture):
    door = Door([], FailedLogins(per_address=1, in_all=1, window_s=60), Audit(None))
    with caplog.at_level(logging.INFO):
        await _call(door, "CreateJob", _shows(""), "jobs/j1")
    assert [record.target for record in caplog.records if record.name == "seedvr2.audit"] == ["jobs/j1"]
