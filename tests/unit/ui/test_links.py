import pytest

from services.common.errors import InvalidOption
from services.ui.links import Links, checked_id


@pytest.mark.parametrize("root_path", ["", "/seedvr2"])
def test_every_address_is_under_the_published_path(root_path: str) -> None:
    links = Links(root_path=root_path)
    addresses = [
        links.home(), links.job("a"), links.result("a"), links.download("a"), links.source("a"), links.playlist("a"),
        links.frame("a", "result", 3, 640),
    ]  # fmt: skip
    assert all(address.startswith(f"{root_path}/") for address in addresses)


def test_a_frame_is_named_by_side_number_and_size() -> None:
    links = Links(root_path="")
    assert links.frame("a", "source", 3) == "/files/jobs/a/frames/source/3.png"
    assert links.frame("a", "result", 3, 640) == "/files/jobs/a/frames/result/3.png?max_side=640"


@pytest.mark.parametrize("text", ["a", "0", "a-b", "x" * 63])
def test_an_id_that_can_be_one_is_returned(text: str) -> None:
    assert checked_id(text) == text


@pytest.mark.parametrize("text", ["", "-a", "A", "a/b", "..", "a b", "é", "x" * 64, "a\n"])
def test_what_can_not_be_an_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="1 to 63"):
        checked_id(text)
