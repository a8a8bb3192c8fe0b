from services.gateway.web.headers import retry_after_s


def test_a_server_may_say_when_it_wants_to_be_asked_again():
    assert retry_after_s("120", 0) == 120
    assert retry_after_s("Thu, 01 Jan 1970 00:02:00 GMT", 60) == 60
    assert retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT", 60) == 0
    assert retry_after_s("", 0) is retry_after_s("soon", 0) is None
