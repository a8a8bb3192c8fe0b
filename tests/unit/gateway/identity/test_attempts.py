import pytest

from services.common.errors import LoginsLimited
from services.gateway.identity.attempts import FailedLogins


def _limited(logins: FailedLogins, address: str, now: float) -> bool:
    try:
        logins.check(address, now)
    except LoginsLimited:
        return True
    return False


def test_an_address_that_fails_too_often_waits_until_the_window_has_passed():
    logins = FailedLogins(per_address=3, in_all=100, window_s=60)
    for now in (0.0, 10.0, 20.0):
        assert not _limited(logins, "192.0.2.1", now)
        logins.failed("192.0.2.1", now)
    with pytest.raises(LoginsLimited) as caught:
        logins.check("192.0.2.1", 25.0)
    assert caught.value.retry_after_s == pytest.approx(35)
    assert not _limited(logins, "192.0.2.2", 25.0)
    assert not _limited(logins, "192.0.2.1", 60.0)


def test_all_addresses_together_have_a_limit_too():
    logins = FailedLogins(per_address=3, in_all=5, window_s=60)
    for number in range(5):
        logins.failed(f"192.0.2.{number}", 0.0)
    assert _limited(logins, "198.51.100.1", 1.0)
    assert not _limited(logins, "198.51.100.1", 61.0)


def test_a_network_that_one_person_has_counts_as_one_address():
    logins = FailedLogins(per_address=2, in_all=100, window_s=60)
    logins.failed("2001:db8::1", 0.0)
    logins.failed("2001:db8::2", 0.0)
    assert _limited(logins, "2001:db8::3", 1.0)
    assert not _limited(logins, "2001:db8:0:1::1", 1.0)


def test_memory_is_bounded_however_many_addresses_there_are():
    logins = FailedLogins(per_address=1, in_all=10**6, window_s=60, max_addresses=10)
    for number in range(1000):
        logins.failed(f"address {number}", 0.0)
    assert len(logins._failures) == 10
    assert _limited(logins, "address 999", 1.0)
    assert not _limited(logins, "address 1", 1.0)
