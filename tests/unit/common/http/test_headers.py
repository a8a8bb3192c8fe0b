import pytest
from starlette.requests import Request

from services.common.errors import InvalidOption
from services.common.http.headers import whole_header


def request(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": pairs})


def test_a_whole_number_is_read_and_a_default_stands_for_none():
    assert whole_header(request(upload_offset="12"), "upload-offset") == 12
    assert whole_header(request(), "content-length", 0) == 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "9" * 19])
def test_anything_else_is_refused_in_words(text: str):
    with pytest.raises(InvalidOption, match="The header upload-offset must be a whole number"):
        whole_header(request(upload_offset=text), "upload-offset")


def test_a_header_that_must_be_there_is_missed():
    with pytest.raises(InvalidOption):
        whole_header(request(), "upload-offset")
