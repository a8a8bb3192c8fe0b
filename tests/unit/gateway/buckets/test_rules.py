import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidOption
from services.gateway.buckets.rules import Place, check_allowed, check_templates, parse_uri

TEMPLATES = ("incoming/{subject}/", "public/films/")


def _allowed(uri: str, subject: str) -> bool:
    try:
        check_allowed(parse_uri(uri, "f"), subject, TEMPLATES, "f")
    except InvalidOption:
        return False
    return True


def test_an_object_is_a_bucket_and_a_key():
    assert parse_uri("s3://films/old/a b.mp4", "f") == Place(bucket="films", key="old/a b.mp4")
    assert parse_uri("s3://films/old/a b.mp4", "f").uri == "s3://films/old/a b.mp4"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "films/a",
        "s3://films",
        "s3://films/",
        "s3://films/a/",
        "s3://Films/a",
        "s3://a/b\n",
        "https://films/a",
        "s3:///a",
        "s3://films/ann/../bob/a",
        "s3://films/./a",
        "s3://films/..",
        "s3://films/ann//a",
    ],
)
def test_what_is_no_object_is_refused(text: str):
    with pytest.raises(InvalidOption) as caught:
        parse_uri(text, "request.result_uri")
    assert caught.value.field == "request.result_uri"


@pytest.mark.parametrize(
    ("uri", "subject", "allowed"),
    [
        ("s3://incoming/ann/a.mp4", "ann", True),
        ("s3://incoming/bob/a.mp4", "ann", False),
        ("s3://incoming/ann2/a.mp4", "ann", False),
        ("s3://incoming/local/a.mp4", "", True),
        ("s3://incoming/ann/a.mp4", "", False),
        ("s3://public/films/a.mp4", "ann", True),
        ("s3://public/filmsx/a.mp4", "ann", False),
        ("s3://public2/films/a.mp4", "ann", False),
        ("s3://incoming/bob/x/a.mp4", "bob/x", False),
        ("s3://incoming/../a.mp4", "..", False),
    ],
)
def test_only_objects_under_a_users_own_prefixes_are_allowed(uri: str, subject: str, allowed: bool):
    assert _allowed(uri, subject) == allowed


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20))
def test_nobody_reaches_the_objects_of_another_one_by_a_name(subject: str):
    if subject != "ann":
        assert not _allowed("s3://incoming/ann/secret.mp4", subject)


@pytest.mark.parametrize("template", ["incoming", "/incoming/", "incoming/x", "s3://incoming/", "In/", "a/"])
def test_a_template_that_would_allow_more_than_it_seems_is_refused(template: str):
    with pytest.raises(ValueError, match="is not bucket/"):
        check_templates((template,))
