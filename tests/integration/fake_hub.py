"""A model hub on loopback: real HTTP, the hub's protocol, and every way in which it can misbehave.

As on the real one, a file's address answers with its commit, size and hash and redirects to a content network, another
origin, which must never see the token. Tests that need no misbehaviour also run against a real hub, see ``HUB_VARIABLE``.
"""

import hashlib
import http.server
import threading
import time
import urllib.parse
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

HUB_VARIABLE = "SEEDVR2_TEST_HUB_ENDPOINT"
"""Address of a real hub or mirror for the tests that can use one, for example https://huggingface.co."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Cut:
    """Send this many bytes of what was asked for, then close the connection."""

    after_bytes: int


@dataclass(frozen=True)
class Drip:
    """Send pieces with pauses."""

    piece_bytes: int
    pause_s: float


@dataclass(frozen=True)
class Hold:
    """Send this many bytes, then nothing until released."""

    after_bytes: int
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Answer:
    """Refuse with a status, and with the hub's own name for the reason."""

    status: int
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class OtherBytes:
    """Send as many bytes as promised, but others."""


@dataclass(frozen=True)
class WholeFile:
    """Send everything, whatever range was asked for."""


@dataclass(frozen=True)
class Claim:
    """Say something else about the file than is true."""

    headers: tuple[tuple[str, str], ...]


Misbehaviour = Cut | Drip | Hold | Answer | OtherBytes | WholeFile | Claim


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    first_byte: int
    authorization: str
    user_agent: str


class FakeHub:
    """A hub with files; a context manager that serves them."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        """At the hub's own address."""
        self.transfers: list[Asked] = []
        """At the content network's."""
        self.sent_bytes = 0
        """Of files, in all."""
        self.token = ""
        """Without which nothing is shown; empty: everything is public."""
        self.redirects = True
        """Whether files come from the content network or, as from a simple mirror, from the hub itself."""
        self.refuses_tokens = True
        """Whether the content network, as a real one, fails when it is sent a token."""
        self._files: dict[tuple[str, str], bytes] = {}
        self._once: dict[tuple[str, str], list[Misbehaviour]] = defaultdict(list)
        self._always: dict[tuple[str, str], Misbehaviour] = {}
        self._hub = _Server(self, _HubHandler)
        self._network = _Server(self, _NetworkHandler)

    @property
    def endpoint(self) -> str:
        """Address of the hub."""
        return self._hub.address

    def add(self, repository: str, file: str, content: bytes) -> str:
        """Publish a file; returns its SHA-256."""
        self._files[repository, file] = content
        return hashlib.sha256(content).hexdigest()

    def next(self, method: str, file: str, *misbehaviours: Misbehaviour) -> None:
        """Misbehave once each at the next requests (GET: at the transfer of the bytes) for a file."""
        self._once[method, file].extend(misbehaviours)

    def always(self, method: str, file: str, misbehaviour: Misbehaviour) -> None:
        """Misbehave from now on."""
        self._always[method, file] = misbehaviour

    def behave(self) -> None:
        """From now on."""
        self._once.clear()
        self._always.clear()

    def transfers_of(self, file: str) -> list[Asked]:
        """Requests for the bytes of a file."""
        return [asked for asked in self.transfers if asked.path.endswith("/" + file)]

    def misbehaviour(self, method: str, file: str) -> Misbehaviour | None:
        waiting = self._once[method, file]
        return waiting.pop(0) if waiting else self._always.get((method, file))

    def content(self, repository: str, file: str) -> bytes | None:
        return self._files.get((repository, file))

    def has_repository(self, repository: str) -> bool:
        return any(known == repository for known, _ in self._files)

    @property
    def network(self) -> str:
        return self._network.address

    def __enter__(self) -> "FakeHub":
        self._hub.run()
        self._network.run()
        return self

    def __exit__(self, *ending: object) -> None:
        for misbehaviour in (*self._always.values(), *(each for waiting in self._once.values() for each in waiting)):
            if isinstance(misbehaviour, Hold):
                misbehaviour.release.set()
        self._hub.end()
        self._network.end()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: FakeHub, handler: type["_Handler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.hub = hub
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def run(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what came in is kept in the hub's lists."""

    def asked(self) -> Asked:
        first = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
        return Asked(
            method=self.command,
            path=urllib.parse.unquote(self.path.partition("?")[0]),
            first_byte=int(first),
            authorization=self.headers.get("Authorization", ""),
            user_agent=self.headers.get("User-Agent", ""),
        )

    def refuse(self, status: int, code: str = "", headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", "0"), *headers, *((("X-Error-Code", code),) if code else ())):
            self.send_header(name, value)
        self.end_headers()

    def send_file(self, content: bytes, misbehaviour: Misbehaviour | None) -> None:
        first = 0 if isinstance(misbehaviour, WholeFile) else self.asked().first_byte
        if first and first >= len(content):
            self.refuse(416, headers=(("Content-Range", f"bytes */{len(content)}"),))
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self._send(bytes(len(content)) if isinstance(misbehaviour, OtherBytes) else content, first, misbehaviour)

    def _send(self, content: bytes, first: int, misbehaviour: Misbehaviour | None) -> None:
        match misbehaviour:
            case Cut(after_bytes):
                self._write(content[first : first + after_bytes])
                self.close_connection = True
            case Drip(piece_bytes, pause_s):
                for start in range(first, len(content), piece_bytes):
                    self._write(content[start : start + piece_bytes])
                    time.sleep(pause_s)
            case Hold(after_bytes, reached, release):
                self._write(content[first : first + after_bytes])
                reached.set()
                release.wait()
                self._write(content[first + after_bytes :])
            case _:
                self._write(content[first:])

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.server.hub.sent_bytes += len(data)


class _HubHandler(_Handler):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, asked = self.server.hub, self.asked()
        hub.requests.append(asked)
        owner, _, rest = asked.path.removeprefix("/").partition("/")
        name, _, place = rest.partition("/resolve/")
        revision, _, file = place.partition("/")
        misbehaviour = hub.misbehaviour(asked.method, file) if asked.method == "HEAD" or not hub.redirects else None
        if isinstance(misbehaviour, Answer):
            self.refuse(misbehaviour.status, misbehaviour.code, misbehaviour.headers)
        elif hub.token and asked.authorization != f"Bearer {hub.token}":
            self.refuse(401, "RepoNotFound")
        elif not hub.has_repository(f"{owner}/{name}"):
            self.refuse(404, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif (content := hub.content(f"{owner}/{name}", file)) is None:
            self.refuse(404, "EntryNotFound")
        else:
            self._serve(f"{owner}/{name}/{file}", content, misbehaviour)

    def _serve(self, path: str, content: bytes, misbehaviour: Misbehaviour | None) -> None:
        hub = self.server.hub
        if not hub.redirects and self.command == "GET":
            hub.transfers.append(self.asked())
            self.send_file(content, misbehaviour)
            return
        told = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Content-Length": "0" if hub.redirects else str(len(content)),
        }
        if hub.redirects:
            told["Location"] = f"{hub.network}/{path}?signature=secret"
        self.send_response(302 if hub.redirects else 200)
        for key, value in (told | dict(misbehaviour.headers if isinstance(misbehaviour, Claim) else ())).items():
            if value:
                self.send_header(key, value)
        self.end_headers()


class _NetworkHandler(_Handler):
    def do_GET(self) -> None:
        hub, asked = self.server.hub, self.asked()
        hub.transfers.append(asked)
        owner, name, file = asked.path.removeprefix("/").split("/", 2)
        misbehaviour = hub.misbehaviour("GET", file)
        if asked.authorization and hub.refuses_tokens:
            self.refuse(400)
        elif isinstance(misbehaviour, Answer):
            self.refuse(misbehaviour.status, misbehaviour.code, misbehaviour.headers)
        else:
            self.send_file(hub.content(f"{owner}/{name}", file) or b"", misbehaviour)
