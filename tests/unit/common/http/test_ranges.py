import pytest

from services.common.errors import RangeOutOfBounds
from services.common.http.ranges import parse_range


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        ("bytes=0-9", "bytes 0-9/100"),
        ("bytes=90-", "bytes 90-99/100"),
        ("bytes=90-500", "bytes 90-99/100"),
        ("bytes=-10", "bytes 90-99/100"),
        ("bytes=-500", "bytes 0-99/100"),
        (" Bytes = 5-5 ", "bytes 5-5/100"),
    ],
)
def test_a_range_is_answered_with_the_bytes_that_exist(header: str, answer: str) -> None:
    part = parse_range(header, 100)
    assert part is not None
    assert part.content_range(100) == answer


@pytest.mark.parametrize(
    "header", [None, "", "bytes=-", "bytes=9-5", "bytes=0-1,4-5", "frames=0-1", "bytes=a-b", "bytes=--5", f"bytes={'9' * 5000}-"]
)
def test_a_header_that_is_no_single_range_means_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(header: str) -> None:
    with pytest.raises(RangeOutOfBounds, match="100 bytes"):
        parse_range(header, 100)
