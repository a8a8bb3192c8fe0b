import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.__main__ import main
from services.cli.arguments import build_parser
from tests.unit.common.fake_gateway import FakeGateway


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_models_are_listed_as_they_are_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["models", "list"]) == 0
    head, nano, *_, where = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "HERE", "SIZE", "TITLE"]
    assert nano.split()[:2] == ["nano", "ready"]
    assert where == f"HERE is {tmp_path}/.local/share/seedvr2/models."


def test_a_directory_is_named_by_an_option_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "a" / "seedvr2-3b").mkdir(parents=True)
    (tmp_path / "a" / "seedvr2-3b" / "dit.gguf").touch()
    assert main(["models", "list", "--directory", str(tmp_path / "a"), "--json"]) == 0
    monkeypatch.setenv("SEEDVR2_MODELS_DIRECTORY", str(tmp_path / "a"))
    assert main(["models", "list", "--json"]) == 0
    for line in capsys.readouterr().out.splitlines():
        listed = json.loads(line)
        assert listed["directory"] == str(tmp_path / "a")
        assert {model["name"]: model["here"] for model in listed["models"]}["seedvr2-3b"] == "foreign"


async def test_with_a_gateway_they_are_listed_with_who_serves_them(
    gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]
):
    arguments = build_parser().parse_args(["models", "list", "--server", server])
    assert await asyncio.to_thread(arguments.run, arguments) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["NAME", "HERE", "SIZE", "SERVED", "PARAMETERS", "POOLS", "TITLE"]
    assert rows[1][:2] == ["nano", "ready"]
    assert rows[1][4:8] == ["yes", "6.2", "M", "local"]
    assert rows[2][:3] == ["seedvr2-3b", "absent", "no"]


async def test_as_json_the_gateway_s_word_stands_beside_this_machine_s(
    gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]
):
    arguments = build_parser().parse_args(["models", "list", "--server", server, "--json"])
    await asyncio.to_thread(arguments.run, arguments)
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["name"] for model in models if model.get("gateway", {}).get("ready")] == ["nano"]
    assert {model["here"] for model in models} == {"ready", "absent"}


def test_fetch_and_verify_do_what_the_init_container_s_command_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["models", "fetch", "nano", "--offline"]) == 0
    assert main(["models", "verify", "nano"]) == 0
    assert capsys.readouterr().out == "nano is whole\n"


def test_what_fails_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "verify", "seedvr2-3b"]) == 1
    assert "seedvr2-3b is not whole" in capsys.readouterr().err


def test_a_token_is_no_argument(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "fetch", "seedvr2-3b", "--token", "hf_x"]) == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_a_client_without_the_hub_packages_says_where_models_are_fetched():
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from services.cli.__main__ import main; sys.exit(main(['models', 'fetch', 'seedvr2-3b']))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "where the inference service is installed; huggingface_hub is missing here" in ended.stderr
