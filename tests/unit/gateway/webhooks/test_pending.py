import itertools

import pytest

from services.common.errors import NewerRelease
from services.gateway.webhooks.pending import Pending, begun, pending_from_json, pending_to_json, postponed


def test_what_is_stored_is_read_back():
    pending = Pending(created_at=1.5, event_id="msg_1", first_at=2, attempts=3, next_at=4, busy_until=5, error="x")
    assert pending_from_json(pending_to_json(pending)) == pending
    with pytest.raises(NewerRelease, match="schema version"):
        pending_from_json(b'{"schema_version": 99}')
    with pytest.raises(NewerRelease, match="a webhook has how"):
        pending_from_json(b'{"schema_version": 1, "created_at": 1.5, "how": "mail"}')


def test_pauses_grow_to_hours_and_no_further():
    pending, now, pauses = Pending(created_at=0), 0.0, []
    for _ in range(12):
        pending = postponed(begun(pending, "msg_1", now, 30), "away", now, 5.0)
        pauses.append(pending.next_at - now)
        now = pending.next_at
    assert 4.5 <= pauses[0] <= 5.5
    assert all(later > 3 * earlier for earlier, later in itertools.pairwise(pauses[:6]))
    assert max(pauses) <= 1.1 * 4 * 3600
    assert (pending.attempts, pending.first_at) == (12, 0)


def test_the_receiver_may_ask_for_a_longer_pause_but_not_for_an_endless_one():
    pending = begun(Pending(created_at=0), "msg_1", 0, 30)
    assert postponed(pending, "", 0, 5.0, 600.0).next_at == 600
    assert postponed(pending, "", 0, 5.0, 1e9).next_at == 4 * 3600
    assert postponed(pending, "", 0, 5.0, 0.1).next_at > 4


def test_another_event_begins_anew():
    pending = postponed(begun(Pending(created_at=0), "msg_1", 10, 30), "away", 11, 5.0)
    again = begun(pending, "msg_2", 20, 30)
    assert (again.attempts, again.first_at, again.error, again.busy_until) == (1, 20, "", 50)
