"""The command's arguments and exit codes. With a hub and as a process: tests/integration/test_delivery.py."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.inference.delivery.command import main


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    root, stop = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    signal.signal(signal.SIGTERM, stop)


def test_the_module_is_the_command(tmp_path: Path):
    arguments = [sys.executable, "-m", "services.inference.models", "list", "--directory", str(tmp_path)]
    listed = subprocess.run(arguments, capture_output=True, text=True)
    assert listed.returncode == 0
    assert [line.split()[:2] for line in listed.stdout.splitlines()][:2] == [["nano", "ready"], ["seedvr2-3b", "absent"]]


def test_the_embedded_model_is_ready_and_whole_without_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    directory = str(tmp_path / "models")
    assert main(["fetch", "nano", "--directory", directory, "--offline"], {}) == 0
    assert main(["verify", "nano"], {"SEEDVR2_MODELS_DIRECTORY": directory}) == 0
    assert capsys.readouterr().out == "nano is whole\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fetch", "seedvr2-1b", "--directory", "/tmp"), "There is no model 'seedvr2-1b'"),
        (("fetch", "seedvr2-3b", "--directory", "/tmp", "--endpoint", "hub.example"), "must be an address like"),
        (("fetch", "seedvr2-3b", "--directory", "/tmp", "--token-file", "/not/there"), "token file /not/there can't be read"),
    ],
    ids=["model", "endpoint", "token-file"],
)
def test_wrong_settings_end_with_code_2_and_words(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(arguments, {}) == 2
    assert words in capsys.readouterr().err


def test_a_token_is_no_argument(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["fetch", "seedvr2-3b", "--token", "hf_x"], {})
    assert "unrecognized arguments" in capsys.readouterr().err


def test_what_is_not_there_ends_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", "nano", "seedvr2-3b", "--directory", str(tmp_path)], {}) == 1
    shown = capsys.readouterr()
    assert shown.out == "nano is whole\n"
    assert "seedvr2-3b is not whole" in shown.err
