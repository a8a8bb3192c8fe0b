import asyncio
import ipaddress
import ssl
from pathlib import Path

import pytest

from services.common.errors import InvalidInput, InvalidOption, SettingsError, Unavailable
from services.gateway.web.addresses import Address, AddressGuard, parse_networks
from services.gateway.web.client import Answer, WebClient, tls_context
from services.gateway.web.urls import Url, parse_url
from tests.certificates import Authority
from tests.unit.gateway.web.servers import Seen, raw, says, server_tls, web_server

HERE = parse_networks(("127.0.0.1/32",))


class Names:
    """A name server that gives its answers in turn, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [ipaddress.ip_address(text) for text in answer]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    return server_tls(authority, "films.example", "other.example")


def _client(authority: Authority, *answers: list[str], timeout_s: float = 10.0, guard: AddressGuard | None = None) -> WebClient:
    names = Names(*(answers or (["127.0.0.1"],)))
    context = tls_context(str(authority.ca))
    return WebClient(guard or AddressGuard(HERE), tls=context, http=True, timeout_s=timeout_s, resolve=names)


def _url(text: str) -> Url:
    return parse_url(text, field="f", http=True)


async def _get(client: WebClient, url: str, *, follow: bool = False) -> tuple[Answer, bytes]:
    async with client.request("GET", _url(url), follow=follow, field="f") as answer:
        return answer, b"".join([piece async for piece in answer.pieces])


async def test_a_file_is_read_over_tls_by_the_name_in_the_url(authority: Authority, tls: ssl.SSLContext):
    async with web_server(says("200 OK", b"film", ETag='"1"'), tls) as web:
        answer, body = await _get(_client(authority), f"https://films.example:{web.port}/a?b=c")
    assert (answer.status, body, answer.headers["etag"]) == (200, b"film", '"1"')
    (seen,) = web.seen
    assert seen.line == "GET /a?b=c HTTP/1.1"
    assert seen.headers["host"] == f"films.example:{web.port}"
    assert not {"cookie", "authorization", "proxy-authorization"} & seen.headers.keys()


async def test_a_body_is_posted_whole(authority: Authority, tls: ssl.SSLContext):
    async with web_server(says("204 No Content"), tls) as web:
        url = _url(f"https://films.example:{web.port}/hook")
        async with _client(authority).request("POST", url, headers=[("x-a", "b")], content=b"{}") as answer:
            assert answer.status == 204
    assert (web.seen[0].body, web.seen[0].headers["x-a"]) == (b"{}", "b")


async def test_a_certificate_for_another_name_is_refused(authority: Authority, tls: ssl.SSLContext):
    async with web_server(says("200 OK"), tls) as web:
        with pytest.raises(Unavailable, match=r"evil\.example can't be reached.*certificate is not valid"):
            await _get(_client(authority), f"https://evil.example:{web.port}/")
    assert not web.seen


async def test_an_unknown_authority_is_refused(tmp_path: Path, tls: ssl.SSLContext):
    async with web_server(says("200 OK"), tls) as web:
        with pytest.raises(Unavailable, match=r"broke off: (self-signed|unable to get local issuer)"):
            await _get(_client(Authority(tmp_path, "another authority")), f"https://films.example:{web.port}/")


async def test_a_name_with_a_private_address_is_not_connected_to(authority: Authority):
    async with web_server(says("200 OK")) as web:
        with pytest.raises(InvalidInput, match=r"inside\.example has no public address") as caught:
            await _get(_client(authority, guard=AddressGuard()), f"http://inside.example:{web.port}/")
        assert "127.0.0.1" not in caught.value.message
    assert not web.seen


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "[::1]", "[::ffff:7f00:1]", "localhost"]
)
async def test_no_way_to_write_loopback_connects_to_it(authority: Authority, host: str):
    client = WebClient(AddressGuard(), tls=tls_context(str(authority.ca)), http=True)
    async with web_server(says("200 OK")) as web:
        with pytest.raises(InvalidInput, match="no public address"):
            await _get(client, f"http://{host}:{web.port}/")
    assert not web.seen


async def test_of_several_addresses_only_allowed_ones_are_tried(authority: Authority):
    async with web_server(says("200 OK", b"x")) as web:
        client = _client(authority, ["10.0.0.1", "169.254.169.254", "127.0.0.1"])
        assert (await _get(client, f"http://films.example:{web.port}/"))[1] == b"x"


async def test_a_name_that_changes_its_mind_is_checked_each_time_and_connected_to_as_checked(authority: Authority):
    # Rebinding: the first answer is allowed, the second one leads inside. There is no third: what was checked is what is used.
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    client = WebClient(AddressGuard(HERE), tls=tls_context(""), http=True, resolve=names)
    async with web_server(says("200 OK", b"x")) as web:
        assert (await _get(client, f"http://films.example:{web.port}/"))[1] == b"x"
        assert names.asked == ["films.example"]
        with pytest.raises(InvalidInput, match="no public address"):
            await _get(client, f"http://films.example:{web.port}/")
    assert (len(web.seen), len(names.asked)) == (1, 2)


async def test_a_redirect_is_followed_to_an_allowed_place(authority: Authority, tls: ssl.SSLContext):
    async with web_server(says("200 OK", b"film"), tls) as there, web_server(raw(b""), tls) as web:
        web.respond = says("302 Found", Location=f"https://other.example:{there.port}/b")
        answer, body = await _get(_client(authority), f"https://films.example:{web.port}/a", follow=True)
    assert (body, answer.url.host) == (b"film", "other.example")


async def test_a_redirect_to_the_inside_is_not_followed(authority: Authority):
    async with web_server(says("200 OK", b"secret")) as inside:
        location = f"http://inside.example:{inside.port}/latest/meta-data"
        async with web_server(says("302 Found", Location=location)) as web:
            client = _client(authority, ["127.0.0.1"], ["127.0.0.2"], guard=AddressGuard(HERE))
            with pytest.raises(InvalidInput, match=r"inside\.example has no public address"):
                await _get(client, f"http://films.example:{web.port}/", follow=True)
    assert not inside.seen


@pytest.mark.parametrize("location", ["http://films.example/", "file:///etc/passwd", "https://u:p@films.example/", "gopher://x/"])
async def test_a_redirect_to_what_no_url_may_be_is_refused(authority: Authority, tls: ssl.SSLContext, location: str):
    async with web_server(says("307 Temporary Redirect", Location=location), tls) as web:
        with pytest.raises(InvalidOption) as caught:
            await _get(_client(authority), f"https://films.example:{web.port}/", follow=True)
    assert caught.value.field == "f"


async def test_redirects_have_an_end(authority: Authority):
    async with web_server(says("302 Found", Location="/again")) as web:
        with pytest.raises(InvalidInput, match="more than 5 times"):
            await _get(_client(authority), f"http://films.example:{web.port}/", follow=True)
    assert len(web.seen) == 6


async def test_a_redirect_is_an_answer_where_none_is_to_be_followed(authority: Authority):
    async with web_server(says("302 Found", Location="/x")) as web:
        assert (await _get(_client(authority), f"http://films.example:{web.port}/"))[0].status == 302


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n",
     b"SSH-2.0-OpenSSH_9.0\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
     b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n"],
    ids=["short", "unended", "another protocol", "nothing", "negative length", "endless head"],
)  # fmt: skip
async def test_what_breaks_off_or_is_no_http_can_be_tried_again(authority: Authority, data: bytes):
    async with web_server(raw(data)) as web:
        with pytest.raises(Unavailable, match=r"films\.example"):
            await _get(_client(authority), f"http://films.example:{web.port}/")


async def test_more_bytes_than_announced_are_not_read(authority: Authority):
    async with web_server(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcdef")) as web:
        assert (await _get(_client(authority), f"http://films.example:{web.port}/"))[1] == b"ab"


async def test_a_server_that_says_nothing_is_given_up(authority: Authority):
    left = asyncio.Event()

    async def silent(request: Seen, writer: asyncio.StreamWriter) -> None:
        await left.wait()

    async with web_server(silent) as web:
        with pytest.raises(Unavailable, match="in time"):
            await _get(_client(authority, timeout_s=0.2), f"http://films.example:{web.port}/")
        left.set()


async def test_nobody_there_can_be_tried_again(authority: Authority, unused_tcp_port: int):
    with pytest.raises(Unavailable, match="can't be reached"):
        await _get(_client(authority), f"http://films.example:{unused_tcp_port}/")


async def test_a_name_without_an_address_can_be_tried_again(authority: Authority):
    with pytest.raises(Unavailable, match="can't be reached"):
        await _get(_client(authority, []), "http://films.example/")


async def test_proxies_of_the_environment_are_not_used(authority: Authority, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with web_server(says("200 OK", b"x")) as web:
        assert (await _get(_client(authority), f"http://films.example:{web.port}/"))[1] == b"x"


async def test_a_callers_own_time_limit_stays_its_own(authority: Authority):
    async with web_server(says("200 OK", b"x")) as web:
        with pytest.raises(TimeoutError):
            async with _client(authority).request("GET", _url(f"http://films.example:{web.port}/")):
                raise TimeoutError


def test_certificates_that_can_not_be_read_are_told(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"none\.pem can't be read"):
        tls_context(str(tmp_path / "none.pem"))
