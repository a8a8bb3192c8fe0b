"""From Ingress objects to nginx's configuration, as ingress-nginx makes it. Pure."""

from typing import Any

from tests.integration.proxies.routes import Ways

_PREFIX = "nginx.ingress.kubernetes.io/"
# What ingress-nginx does where no annotation says otherwise.
_DEFAULTS = {
    "proxy-body-size": "1m", "proxy-read-timeout": "60", "proxy-send-timeout": "60", "proxy-buffering": "off",
    "proxy-request-buffering": "on", "backend-protocol": "HTTP",
}  # fmt: skip
_KINDS = {"ui": "page", "gateway-rest": "rest", "gateway": "grpc"}


def nginx_configuration(ingresses: list[dict[str, Any]], ways: Ways, *, faster: float) -> str:
    """The whole file; every time is divided by ``faster``."""
    servers = [_server(_annotations(each), ways[kind_of(each)], faster) for each in ingresses]
    temporary = "".join(f"{kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return "\n".join(
        [
            "pid nginx.pid; error_log stderr warn; worker_processes 1; user root;",
            "events { worker_connections 512; }",
            "http {",
            "access_log off; map $http_upgrade $connection_upgrade { default upgrade; '' ''; }",
            temporary,
            *servers,
            "}",
        ]
    )


def kind_of(ingress: dict[str, Any]) -> str:
    """Which way in an Ingress is."""
    return _KINDS[str(ingress["metadata"]["name"]).partition("-seedvr2-")[2]]


def _annotations(ingress: dict[str, Any]) -> dict[str, str]:
    given: dict[str, str] = ingress["metadata"].get("annotations", {})
    return _DEFAULTS | {name.removeprefix(_PREFIX): value for name, value in given.items() if name.startswith(_PREFIX)}


def _server(said: dict[str, str], way: Any, faster: float) -> str:
    grpc = said["backend-protocol"].startswith("GRPC")
    read, send = (f"{round(1000 * float(said[f'proxy-{name}-timeout']) / faster)}ms" for name in ("read", "send"))
    scheme = {"HTTP": "http", "HTTPS": "https", "GRPC": "grpc", "GRPCS": "grpcs"}[said["backend-protocol"]]
    module = "grpc" if grpc else "proxy"
    lines = [
        f"listen 127.0.0.1:{way.port}{' http2' if grpc else ''};",
        f"client_max_body_size {said['proxy-body-size']};",
        f"{module}_read_timeout {read}; {module}_send_timeout {send};",
        f"{module}_set_header Host $http_host; {module}_set_header X-Forwarded-For $remote_addr;",
    ]
    if not grpc:
        lines += [
            f"proxy_buffering {said['proxy-buffering']}; proxy_request_buffering {said['proxy-request-buffering']};",
            "proxy_http_version 1.1; proxy_set_header X-Forwarded-Proto $scheme;",
            "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;",
        ]
    return "\n".join(["server {", *lines, f"location / {{ {module}_pass {scheme}://{way.backend}; }}", "}"])
