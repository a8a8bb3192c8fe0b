"""A real S3 server for tests: SeaweedFS in a process, or any other server named in the environment.

``SEEDVR2_TEST_S3_ENDPOINT``, ``…_BUCKET``, ``…_ACCESS_KEY``, ``…_SECRET_KEY`` and ``…_REGION`` name one that is there: MinIO,
Ceph, AWS. The same tests run against it, only those that stop a server in the middle start one of their own. Each test uses a
prefix of its own.
"""

import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import urllib3
from minio import Minio
from minio.error import MinioException

from services.gateway.store.s3.settings import S3Settings

_RUN = f"test-{secrets.token_hex(6)}"
_VARIABLES = "SEEDVR2_TEST_S3"
_START_S, _STOP_S, _POLL_S = 60.0, 20.0, 0.05
_PORTS = ("master.port", "master.port.grpc", "filer.port", "filer.port.grpc", "volume.port", "volume.port.grpc",
          "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc")  # fmt: skip
_SWITCHES = ("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.iam=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0",
             "-s3.port.lance=0", "-master.telemetry=false")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """An S3 server with a bucket."""

    endpoint: str
    """Its URL."""

    bucket: str
    """A bucket that is there."""

    access_key: str
    """Of somebody who may do everything with it."""

    secret_key: str
    """Belongs to it."""

    region: str = "us-east-1"
    """Where it is."""

    def settings(self, directory: Path, **values: Any) -> S3Settings:
        """Settings of a store in this bucket; its files, and by default its prefix, are those of ``directory`` alone."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("access_key", "secret_key"):
            (directory / name).write_text(getattr(self, name) + "\n")
        known = {
            "endpoint": self.endpoint, "bucket": self.bucket, "region": self.region, "prefix": prefix_of(directory),
            "access_key_file": str(directory / "access_key"), "secret_key_file": str(directory / "secret_key"),
            "scratch_directory": str(directory / "scratch"), "lifecycle": False, "tries": 4, "retry_s": 15.0,
        }  # fmt: skip
        return S3Settings(**known | values)


class SeaweedFS:
    """A server in a process of this machine, with its data in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}
        directory.mkdir(parents=True)
        identity = {
            "name": "test", "credentials": [{"accessKey": "test-key", "secretKey": secrets.token_hex(16)}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }  # fmt: skip
        (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
        self._secret = identity["credentials"][0]["secretKey"]

    @property
    def s3(self) -> S3:
        """How to reach it."""
        endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        return S3(endpoint=endpoint, bucket="seedvr2-test", access_key="test-key", secret_key=self._secret)

    def start(self) -> None:
        """Start it, where it was before if it ran, and wait until it takes writes."""
        again = bool(self._ports)
        for _ in range(1 if again else 5):
            self._ports = self._ports or dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
            self._launch()
            if self._wait():
                return
            # Somebody else took a port in the meantime.
            self.kill()
            self._ports = {}
        raise AssertionError((self._directory / "log").read_text()[-4000:])

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it end."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It keeps its connections and answers nothing, until :meth:`go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _launch(self) -> None:
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        command = [
            _tool("weed"), "mini", f"-dir={data}", f"-s3.config={self._directory / 'identities.json'}", "-bucket=seedvr2-test",
            *_SWITCHES, *(f"-{name}={port}" for name, port in self._ports.items()),
        ]  # fmt: skip
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._directory)

    def _wait(self) -> bool:
        assert self._process is not None
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.s3.endpoint + "/healthz").is_success and self._takes_writes():
                    return True
            time.sleep(_POLL_S)
        return False

    def _takes_writes(self) -> bool:
        client = client_of(self.s3)
        try:
            client.put_object(self.s3.bucket, "ready", io.BytesIO(b"1"), 1)
        except (MinioException, urllib3.exceptions.HTTPError):
            return False
        client.remove_object(self.s3.bucket, "ready")
        return True

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_S)


def client_of(s3: S3) -> Minio:
    """A plain client, to look at the bucket from outside."""
    url = urlsplit(s3.endpoint)
    pool = urllib3.PoolManager(retries=False, timeout=5.0)
    return Minio(
        url.netloc, access_key=s3.access_key, secret_key=s3.secret_key, secure=url.scheme == "https", region=s3.region,
        http_client=pool,
    )  # fmt: skip


def prefix_of(directory: Path) -> str:
    """A prefix for a test's directory."""
    return f"{_RUN}/{directory.parent.name}-{directory.name}/"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def seaweedfs(directory: Path) -> Iterator[SeaweedFS]:
    """A server of one's own, which can be stopped and started."""
    server = SeaweedFS(directory)
    try:
        server.start()
        yield server
    finally:
        server.go_on()
        server.kill()


def named_server() -> S3 | None:
    """The server that the environment names."""
    values = {name: os.environ.get(f"{_VARIABLES}_{name.upper()}", "") for name in S3.__slots__}
    return S3(**{name: value for name, value in values.items() if value}) if values["endpoint"] else None


def remove_all(s3: S3) -> None:
    """Remove what this run's tests left in a server that goes on."""
    client = client_of(s3)
    for each in client.list_objects(s3.bucket, f"{_RUN}/", recursive=True):
        client.remove_object(s3.bucket, str(each.object_name))


@contextlib.contextmanager
def shared_server(directory: Path) -> Iterator[S3]:
    """The server that the environment names, or a fresh SeaweedFS with its data in ``directory``."""
    named = named_server()
    if named:
        yield named
        remove_all(named)
        return
    with seaweedfs(directory / "weed") as server:
        yield server.s3


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert found, f"{name} is missing: run make setup"
    return found
