import base64
import re
import time
from pathlib import Path
from typing import Any

import pytest

from services.gateway.webhooks.signing import parse_secrets, signed_headers

# The example of the Standard Webhooks specification.
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
EVENT = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')


def test_a_request_is_signed_as_the_specification_says():
    headers = dict(signed_headers(*EVENT, parse_secrets(SECRET)))
    assert headers == {"webhook-id": EVENT[0], "webhook-timestamp": "1614265330", "webhook-signature": SIGNED}


def test_while_a_secret_is_changed_both_sign():
    new = b"whsec_" + base64.b64encode(b"n" * 32)
    keys = parse_secrets(b"# the new one\n" + new + b"\n\n" + SECRET + b"\n")
    first, second = dict(signed_headers(*EVENT, keys))["webhook-signature"].split()
    assert second == SIGNED
    assert first != SIGNED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no secret"),
        (b"# nothing\n", "no secret"),
        (b"secret", "not whsec_"),
        (b"whsec_%%%", "not whsec_"),
        (SECRET.removeprefix(b"whsec_"), "not whsec_"),
        (b"whsec_" + base64.b64encode(b"short"), "24 to 64 bytes"),
        (b"whsec_" + base64.b64encode(b"x" * 65), "24 to 64 bytes"),
        (b"\xff\xfe", "not whsec_"),
    ],
)
def test_a_file_without_a_usable_secret_is_told(text: bytes, words: str):
    with pytest.raises(ValueError, match=words):
        parse_secrets(text)


def test_the_documented_verification_takes_what_the_gateway_signs_and_nothing_else():
    page = (Path(__file__).parents[4] / "docs/webhooks.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    verify = names["verify"]
    now = int(time.time())
    headers = dict(signed_headers("msg_1", now, b"{}", parse_secrets(SECRET)))
    verify(SECRET.decode(), headers, b"{}")
    with pytest.raises(ValueError, match="not signed"):
        verify(SECRET.decode(), headers, b"{ }")
    old = dict(signed_headers("msg_1", now - 3600, b"{}", parse_secrets(SECRET)))
    with pytest.raises(ValueError, match="too old"):
        verify(SECRET.decode(), old, b"{}")
