"""A small identity provider on a real socket: discovery document, keys, and the tokens that it signs."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "seedvr2"


class Provider:
    """Signs with its newest key; ``requests`` counts what it was asked."""

    def __init__(self, address: str) -> None:
        self.issuer = f"http://{address}/realm"
        self.requests = 0
        self.names = self.issuer
        """What the discovery document calls it."""
        self.keys: dict[str, Any] = {}
        self.published: list[dict[str, Any]] = []
        self.add_key("first", rsa.generate_private_key(public_exponent=65537, key_size=2048))

    def add_key(self, key_id: str, key: Any, **more: str) -> None:
        """Publish one more key, and sign with it."""
        algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        self.keys[key_id] = key
        self.published.append({**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, **more})

    def token(self, *, key_id: str = "", algorithm: str = "", key: Any = None, headers: Any = None, **claims: Any) -> str:
        """A token for alice that is good for a minute; ``claims`` change it, None takes one out."""
        key_id = key_id or list(self.keys)[-1]
        key = key or self.keys[key_id]
        algorithm = algorithm or ("ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256")
        now = int(time.time())
        whole = {"iss": self.issuer, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 60, **claims}
        kept = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(kept, key, algorithm, headers={"kid": key_id, **(headers or {})})

    def answer(self, path: str) -> Any:
        """What is at a path; None: nothing."""
        self.requests += 1
        if path == "/realm/.well-known/openid-configuration":
            return {"issuer": self.names, "jwks_uri": f"{self.issuer}/keys"}
        return {"keys": self.published} if path == "/realm/keys" else None


@contextlib.contextmanager
def running_provider() -> Iterator[Provider]:
    """A provider on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = provider.answer(self.path)
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
