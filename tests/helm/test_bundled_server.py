"""The bundled S3 server and the bucket's Job, run here with the very commands and variables that the chart gives them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helm.chart import Object, render, variables

VALUES = {
    "store": {"type": "s3"},
    "minio": {"server": {"enabled": True}, "accessKey": "someone", "secretKey": "a-long-secret-key"},
}
_START_S = 60.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands for a pod's volumes."""
    place = tmp_path_factory.mktemp("pod")
    for name in ("data", "tmp", "s3"):
        (place / name).mkdir()
    secret = render(VALUES).get("Secret", "s3")["stringData"]
    for key in ("access-key", "secret-key"):
        (place / "s3" / key).write_text(secret[key])
    return place


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[str]:
    """The server's address."""
    binaries = Path(sys.executable).parent
    assert shutil.which("weed", path=str(binaries)), "seedvr2's development packages have it: make setup"
    box = only(render(VALUES).get("StatefulSet", "s3")["spec"]["template"])
    (script,) = box["args"]
    ports = iter(range(free_port_block(5), 65536))
    own = {"-s3.port=8333": f"-s3.port={(port := next(ports))}"}
    more = " ".join(f"-{name}.port={next(ports)}" for name in ("master", "volume", "filer", "admin"))
    script = here(script, place).replace("-s3.port=8333", f"{own['-s3.port=8333']} {more}").replace("0.0.0.0", "127.0.0.1")
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
    with (place / "log").open("w") as log:
        running = subprocess.Popen([*box["command"], script], env=environment, stdout=log, stderr=log)
        try:
            wait_ready(f"http://127.0.0.1:{port}{box['readinessProbe']['httpGet']['path']}", place / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()
            running.wait(30)


def only(template: Object) -> Object:
    (box,) = template["spec"]["containers"]
    return dict(box)


def here(text: str, place: Path) -> str:
    """Paths of a pod as paths of this machine."""
    return re.sub(r"/run/seedvr2/s3\b", str(place / "s3"), re.sub(r"(?<![\w/])/(data|tmp)\b", rf"{place}/\1", text))


def free_port_block(count: int) -> int:
    """The first of some ports that are free, each with the one 10000 above, where the server listens too."""
    for first in range(20000, 40000, 50):
        try:
            for port in range(first, first + count):
                for each in (port, port + 10000):
                    with socket.socket() as listener:
                        listener.bind(("127.0.0.1", each))
        except OSError:
            continue
        return first
    pytest.fail("no free ports")


def wait_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def test_the_job_makes_the_bucket_and_finds_that_it_can_be_relied_on(server: str, place: Path):
    box = only(render(VALUES).get("Job", "bucket-1")["spec"]["template"])
    said = {name: here(value, place) for name, value in variables(box).items()}
    said["SEEDVR2_S3_ENDPOINT"] = server
    command = [sys.executable, *box["command"][1:]]
    for _ in range(2):
        ended = subprocess.run(command, env=os.environ | said, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    (place / "s3" / "secret-key").write_text("another-secret-key")
    refused = subprocess.run(command, env=os.environ | said, capture_output=True, text=True)
    assert refused.returncode != 0
