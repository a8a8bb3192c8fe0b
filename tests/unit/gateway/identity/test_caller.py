import asyncio

from services.gateway.identity.caller import ANYBODY, Caller, Role, calling, current_caller, set_caller
from services.gateway.options import check_id

ALICE, BOB = Caller(subject="alice", role=Role.USER), Caller(subject="bob", role=Role.USER)


def test_without_authentication_everything_belongs_to_one_owner():
    assert current_caller() == ANYBODY
    assert (ANYBODY.owner, ANYBODY.role) == ("local", Role.ADMIN)


def test_an_owner_is_a_name_for_keys_that_does_not_tell_the_subject():
    assert ALICE.owner != BOB.owner
    assert ALICE.owner == Caller(subject="alice", role=Role.ADMIN).owner
    assert "alice" not in ALICE.owner
    check_id(ALICE.owner, "owner")


async def test_each_task_has_its_caller():
    async def work(caller: Caller) -> Caller:
        set_caller(caller)
        await asyncio.sleep(0)
        return current_caller()

    assert await asyncio.gather(*(asyncio.create_task(work(c)) for c in (ALICE, BOB))) == [ALICE, BOB]
    assert current_caller() == ANYBODY


def test_somebody_calls_inside_a_block_only():
    with calling(ALICE):
        assert current_caller() == ALICE
    assert current_caller() == ANYBODY
