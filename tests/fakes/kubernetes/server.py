"""A Kubernetes API server on loopback: real HTTP, versions, watches and refusals as a real one's, and ways to go wrong.

What it answers is compared with recordings of a real server. Tests that need no misbehaviour run against a real cluster, too:
see :mod:`tests.fakes.kubernetes.cluster`.
"""

import contextlib
import http.server
import json
import secrets
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes import answers
from tests.fakes.kubernetes.answers import Refused
from tests.fakes.kubernetes.kinds import KINDS, Kind, Object, unreadable
from tests.fakes.kubernetes.objects import Objects

_POLL_S = 0.02
_USER = "system:serviceaccount:test:gateway"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that came in."""

    verb: str
    """get, list, watch, create, update or delete, as in a Role."""
    resource: str
    name: str


class FakeKubernetes:
    """A cluster's API server; a context manager that runs it."""

    def __init__(self, *, loopback_endpoints: bool = False) -> None:
        """``loopback_endpoints``: take slices with addresses that a real server refuses."""
        self.objects = Objects(loopback_endpoints=loopback_endpoints)
        self.requests: list[Asked] = []
        """All that came in."""
        self.token = secrets.token_urlsafe(16)
        """Without which nothing is answered."""
        self.pause_s = 0.0
        """Between what a request does and its answer."""
        self.failures: list[int] = []
        """Status codes for the next requests."""
        self.forbidden: set[tuple[str, str]] = set()
        """Verbs on resources that are not allowed."""
        self.bookmarks_s = 60.0
        """Between two bookmarks of a watch that asks for them."""
        self._watches: set[socket.socket] = set()
        self._server = _Server(self, 0)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, path: Path, namespace: str = "default") -> Path:
        """Write down how to reach it."""
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.address}}],
            "users": [{"name": "fake", "user": {"token": self.token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": namespace}}],
        }  # fmt: skip
        path.write_text(json.dumps(config))
        return path

    def count(self, verb: str, resource: str) -> int:
        """How often something was asked for."""
        return sum((asked.verb, asked.resource) == (verb, resource) for asked in list(self.requests))

    def go_away(self) -> None:
        """Refuse connections, and cut those that there are."""
        self._server.end()

    def come_back(self) -> None:
        """At the same address, with everything that was written."""
        self._server = _Server(self, self._server.server_address[1])
        self._server.run()

    def cut_watches(self) -> int:
        """Close their connections in the middle; returns how many there were."""
        watches = list(self._watches)
        for connection in watches:
            _close(connection)
        return len(watches)

    def compact(self) -> None:
        """Forget the history, so that a watch from before has expired."""
        self.objects.compact()

    @contextlib.contextmanager
    def watching(self, connection: socket.socket) -> Iterator[None]:
        self._watches.add(connection)
        try:
            yield
        finally:
            self._watches.discard(connection)

    def __enter__(self) -> "FakeKubernetes":
        self._server.run()
        return self

    def __exit__(self, *ending: object) -> None:
        self._server.end()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, cluster: FakeKubernetes, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.cluster = cluster
        self.ended = False
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": _POLL_S}, daemon=True)

    def run(self) -> None:
        self._thread.start()

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self.shutdown()
        self._thread.join()
        self.server_close()
        for connection in list(self._connections):
            _close(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what came in is kept in the cluster's list."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        cluster = self.server.cluster
        length = int(self.headers.get("Content-Length") or 0)
        body: Object = json.loads(self.rfile.read(length)) if length else {}
        try:
            if cluster.failures:
                code = cluster.failures.pop(0)
                raise Refused(answers.status(code, "InternalError", f"told to fail with {code}"))
            self._serve(body)
        except Refused as refusal:
            self._send(refusal.body["code"], refusal.body)

    def _serve(self, body: Object) -> None:
        objects = self.server.cluster.objects
        parts = urllib.parse.urlsplit(self.path)
        query = {name: values[-1] for name, values in urllib.parse.parse_qs(parts.query).items()}
        if parts.path == "/version":
            self._send(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
            return
        kind, namespace, name = _place(parts.path)
        verb = self._verb(name, query)
        self._admit(verb, kind, namespace, name)
        manager = self.headers.get("User-Agent", "unknown").partition("/")[0]
        if verb in ("create", "update") and (problem := unreadable(kind, body)):
            raise Refused(answers.bad_request(problem))
        match verb:
            case "get":
                self._send(200, objects.get(kind, namespace, name))
            case "create":
                self._send(201, objects.create(kind, namespace, body, manager))
            case "update":
                self._send(200, objects.replace(kind, namespace, name, body, manager))
            case "delete":
                self._send(200, objects.delete(kind, namespace, name, body.get("preconditions") or {}))
            case "list":
                selector, token = query.get("labelSelector", ""), query.get("continue", "")
                self._send(200, objects.listed(kind, namespace, selector, int(query.get("limit", 0)), token))
            case "watch":
                with self.server.cluster.watching(self.connection):
                    self._watch(kind, namespace, query)

    def _verb(self, name: str, query: dict[str, str]) -> str:
        if self.command == "GET":
            listing = "watch" if query.get("watch", "").lower() in ("1", "true") else "list"
            return "get" if name else listing
        return {"POST": "create", "PUT": "update", "DELETE": "delete"}[self.command]

    def _admit(self, verb: str, kind: Kind, namespace: str, name: str) -> None:
        cluster = self.server.cluster
        cluster.requests.append(Asked(verb=verb, resource=kind.plural, name=name))
        how, _, token = self.headers.get("Authorization", "").partition(" ")
        if how and (how.lower(), token) != ("bearer", cluster.token):
            raise Refused(answers.unauthorized())
        if not how or (verb, kind.plural) in cluster.forbidden:
            user = _USER if how else "system:anonymous"
            raise Refused(answers.forbidden(kind, verb, namespace, name, user))

    def _send(self, code: int, body: Object) -> None:
        time.sleep(self.server.cluster.pause_s)
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    # ---- watch ----

    def _watch(self, kind: Kind, namespace: str, query: dict[str, str]) -> None:
        objects, selector = self.server.cluster.objects, query.get("labelSelector", "")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        asked = int(query.get("resourceVersion") or 0)
        with objects.written:
            seen = asked or objects.revision
            there = [] if asked else objects.current(kind, namespace, selector)
            too_old = asked and asked < objects.oldest
        if too_old:
            self._event({"type": "ERROR", "object": answers.expired(asked, objects.oldest)})
        else:
            for each in there:
                self._event({"type": "ADDED", "object": each})
            self._follow(kind, namespace, selector, seen, query)
        self.wfile.write(b"0\r\n\r\n")

    def _follow(self, kind: Kind, namespace: str, selector: str, seen: int, query: dict[str, str]) -> None:
        cluster, objects = self.server.cluster, self.server.cluster.objects
        marks = query.get("allowWatchBookmarks", "").lower() in ("1", "true")
        until = time.monotonic() + float(query.get("timeoutSeconds", 3600))
        marked = time.monotonic()
        while time.monotonic() < until and not self.server.ended:
            with objects.written:
                if objects.revision == seen:
                    objects.written.wait(_POLL_S)
                changes, seen = list(objects.changes(kind, namespace, seen)), objects.revision
            for event in (change.event(selector) for change in changes):
                if event is not None:
                    self._event(event)
            if marks and time.monotonic() - marked > cluster.bookmarks_s:
                self._bookmark(kind, seen)
                marked = time.monotonic()
        if marks:
            self._bookmark(kind, seen)

    def _bookmark(self, kind: Kind, revision: int) -> None:
        mark: Object = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": {"resourceVersion": str(revision)}}
        self._event({"type": "BOOKMARK", "object": mark | kind.blank()})

    def _event(self, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()


def _place(path: str) -> tuple[Kind, str, str]:
    for kind in KINDS.values():
        prefix = f"{kind.path}/namespaces/"
        namespace, _, rest = path.removeprefix(prefix).partition("/")
        plural, _, name = rest.partition("/")
        if path.startswith(prefix) and plural == kind.plural and "/" not in name:
            return kind, namespace, urllib.parse.unquote(name)
    raise Refused(answers.no_such_path())


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
