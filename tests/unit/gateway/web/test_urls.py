import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidOption
from services.gateway.web.urls import Url, host_matches, parse_url, redirected


def _parse(text: str, *, http: bool = False) -> Url:
    return parse_url(text, field="request.source.https_url", http=http)


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "target"),
    [
        ("https://example.com/a.mp4", "https", "example.com", 443, "/a.mp4"),
        ("HTTPS://EXAMPLE.com.:8443", "https", "example.com", 8443, "/"),
        ("https://example.com/a%20b.mp4?X-Sig=a/b&c#part", "https", "example.com", 443, "/a%20b.mp4?X-Sig=a/b&c"),
        ("https://[2606:4700::1111]:444/x", "https", "2606:4700::1111", 444, "/x"),
        ("http://files.intranet/x", "http", "files.intranet", 80, "/x"),
        ("https://example.com/a@b", "https", "example.com", 443, "/a@b"),
    ],
)
def test_a_url_is_taken_apart(text: str, scheme: str, host: str, port: int, target: str):
    url = _parse(text, http=True)
    assert (url.scheme, url.host, url.port, url.target) == (scheme, host, port, target)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://example.com/", "begins with http;"),
        ("ftp://example.com/", "begins with ftp;"),
        ("file:///etc/passwd", "begins with file;"),
        ("example.com/a.mp4", "no scheme"),
        ("https://user:secret@example.com/", "user name"),
        ("https://user@example.com/", "user name"),
        ("https:///a.mp4", "no host"),
        ("https://example.com:0/", "no host"),
        ("https://example.com:99999/", "can't be read"),
        ("https://[::1/", "can't be read"),
        ("https://example.com\\@evil.com/", "backslashes"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/\r\nX: y", "spaces"),
        ("https://bücher.example/", "xn--"),
        ("https://-/", "no host"),
        ("https://a%2eb/", "no host"),
        ("https://" + "a" * 5000, "characters"),
    ],
)
def test_what_can_not_be_used_is_refused_in_words(text: str, words: str):
    with pytest.raises(InvalidOption, match=words) as caught:
        _parse(text)
    assert caught.value.field == "request.source.https_url"
    assert "secret" not in caught.value.message


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_a_url_that_is_taken_reads_the_same_again(rest: str):
    try:
        url = _parse("https://" + rest)
    except InvalidOption:
        return
    assert _parse(url.text) == url
    assert "@" not in url.host
    assert not set(url.host) & set("/\\?# ")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/film.mp4?x=/y.mkv", "film.mp4"), ("/", ""), ("/a%2Fb.mp4", "a_b.mp4"), ("/%0a%5c.mp4", "__.mp4"), ("/..", "..")],
)
def test_a_file_name_comes_from_the_path_and_is_harmless(path: str, name: str):
    assert _parse("https://example.com" + path).filename == name


def test_logs_show_no_query():
    url = _parse("https://example.com:8443/a?signature=secret")
    assert url.shown == "https://example.com:8443/a"
    assert url.text.endswith("?signature=secret")


def test_redirects_are_relative_or_whole_and_never_lose_encryption():
    url = _parse("https://example.com/a/b")
    assert redirected(url, "../c", field="f", http=True).text == "https://example.com/c"
    assert redirected(url, "//other.example/x", field="f", http=False).text == "https://other.example/x"
    with pytest.raises(InvalidOption, match="begins with http;"):
        redirected(url, "http://example.com/", field="f", http=True)
    plain = _parse("http://example.com/a", http=True)
    assert redirected(plain, "http://example.com/b", field="f", http=True).scheme == "http"
    with pytest.raises(InvalidOption):
        redirected(url, "https://u:p@example.com/", field="f", http=True)


def test_a_pattern_matches_a_name_or_all_below_it():
    patterns = ("example.com", "*.media.example")
    assert host_matches("example.com", patterns)
    assert host_matches("a.b.media.example", patterns)
    assert not any(
        host_matches(host, patterns) for host in ("a.example.com", "media.example", "evilmedia.example", "example.com.evil")
    )
