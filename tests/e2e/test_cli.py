"""The command line against real services."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import psutil
import pytest

from tests.e2e.demo_clips import FRAMES, bad_clip

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
SEEDVR2 = [sys.executable, "-m", "services.cli"]


@dataclass(frozen=True)
class Up:
    """A running ``seedvr2 up``."""

    process: subprocess.Popen[str]
    gateway: str
    page: str
    data: Path


def _seedvr2(*typed: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SEEDVR2, *map(str, typed)], capture_output=True, text=True, timeout=300, check=False)


def _descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _frames(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"it ended after: {said}"
        said += line
    return said


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bad_clip(tmp_path_factory.mktemp("clips") / "tiny.mp4")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    data = tmp_path_factory.mktemp("up")
    ports = ["--port", "0", "--grpc-port", "0", "--worker-port", "0", "--rest-port", "0"]
    process = subprocess.Popen([*SEEDVR2, "up", "--data", str(data), *ports], stderr=subprocess.PIPE, text=True)
    try:
        said = _read_until(process, "Ready")
        gateway, page = re.search(r"gateway\s+(\S+)", said), re.search(r"http://(\S+)", said)
        assert gateway
        assert page
        yield Up(process, gateway[1], page[1], data)
    finally:
        process.kill()
        process.communicate()


def test_restore_needs_no_server_and_leaves_nothing_running(clip: Path, tmp_path_factory: pytest.TempPathFactory):
    # A short name: sockets are below it, whose paths may not be long.
    directory = tmp_path_factory.mktemp("out")
    process = subprocess.Popen(
        [*SEEDVR2, "restore", str(clip), "-o", str(directory), "--scale", "2", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(directory)},
    )  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (out, err)
    # What it is about to do, and nothing else.
    assert re.fullmatch(rf"\d+x\d+ to 128x\d+, {FRAMES} frames \(\d:\d\d\) in 1 span; nano, mp4.*\n", err)
    record = json.loads(out)
    output = directory / "tiny-restored.mp4"
    assert (record["frames"], record["output"], record["width"]) == (FRAMES, str(output), 128)
    assert record["seconds"] > 0
    assert _frames(output) == FRAMES
    assert list(directory.iterdir()) == [output]
    assert not [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TMPDIR") == str(directory)]


def test_interrupting_restore_ends_everything_that_it_started(clip: Path, tmp_path: Path):
    process = subprocess.Popen([*SEEDVR2, "restore", str(clip), "-o", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    while not (started := _descendants(process.pid)):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("Interrupted.\n")
    assert "Traceback" not in err
    assert psutil.wait_procs(started, timeout=10)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_a_job_goes_through_every_command(up: Up, clip: Path, tmp_path: Path):
    ended = _seedvr2(
        "restore", clip, "-o", tmp_path / "a.mkv", "--server", up.gateway, "--size", "128x96", "--seed", "3", "--json"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    job_id = json.loads(ended.stdout)["job_id"]
    assert _frames(tmp_path / "a.mkv") == FRAMES

    server = ("--server", up.gateway)
    assert job_id in _seedvr2("jobs", "list", *server).stdout
    assert "64x48 to 128x96" in _seedvr2("jobs", "show", job_id, *server).stdout
    assert _seedvr2("jobs", "watch", job_id, *server).stdout == "Done\n"
    again = _seedvr2("jobs", "cancel", job_id, *server, "--json")
    assert (again.returncode, json.loads(again.stdout)["error"]["code"]) == (1, "WrongState")
    assert _seedvr2("jobs", "download", job_id, "-o", tmp_path / "b.mkv", *server).returncode == 0
    assert (tmp_path / "b.mkv").read_bytes() == (tmp_path / "a.mkv").read_bytes()
    assert _seedvr2("jobs", "delete", job_id, *server).returncode == 0
    gone = _seedvr2("jobs", "show", job_id, *server)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.count("\n") == 1


def test_models_are_listed_with_the_one_that_is_served(up: Up):
    models = json.loads(_seedvr2("models", "list", "--server", up.gateway, "--json").stdout)["models"]
    assert [model["name"] for model in models if model.get("gateway", {}).get("ready")] == ["nano"]


@pytest.mark.parametrize("name", ["README.md", "LICENSE"])
def test_a_file_that_is_no_video_is_a_sentence(up: Up, name: str, tmp_path: Path):
    ended = _seedvr2("restore", name, "-o", tmp_path, "--server", up.gateway)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr


def test_an_unknown_model_is_a_sentence(up: Up, clip: Path, tmp_path: Path):
    ended = _seedvr2("restore", clip, "-o", tmp_path, "--server", up.gateway, "--model", "none-such", "--json")
    error = json.loads(ended.stdout)["error"]
    assert (ended.returncode, error["code"]) == (1, "InvalidOption")
    assert "none-such" in error["message"]


def test_a_taken_port_is_a_sentence(up: Up, tmp_path: Path):
    port = up.gateway.rpartition(":")[2]
    ended = _seedvr2("up", "--data", tmp_path, "--grpc-port", port, "--worker-port", "0", "--port", "0", "--rest-port", "0")
    assert ended.returncode == 1
    assert re.fullmatch(rf"The gateway service can't start: Can't listen on 127\.0\.0\.1:{port}.*\.\n", ended.stderr)


def test_a_gateway_that_is_killed_comes_back_where_it_was(up: Up, clip: Path, tmp_path: Path):
    gateways = [p for p in _descendants(up.process.pid) if p.cmdline()[-1] == "services.gateway"]
    gateways[0].kill()
    assert "SIGKILL" in _read_until(up.process, "started again")
    ended = _seedvr2("restore", clip, "-o", tmp_path, "--server", up.gateway)
    assert ended.returncode == 0, ended.stderr


def test_up_ends_in_order_at_sigterm(up: Up):
    started = _descendants(up.process.pid)
    assert {p.cmdline()[-1] for p in started} >= {"services.inference", "services.gateway", "services.ui"}
    up.process.send_signal(signal.SIGTERM)
    _, err = up.process.communicate(timeout=60)
    assert up.process.returncode == 0
    assert "Stopping.\n" in err
    assert "killed" not in err
    assert psutil.wait_procs(started, timeout=5)[1] == []
