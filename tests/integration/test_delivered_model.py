"""From a hub to a restored clip: fetched by the init container's command, converted, verified, loaded by a worker."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from services.inference.delivery.catalogue import EMBEDDED_DIRECTORY, ModelSet, SourceFile
from services.inference.delivery.volume import Volume
from services.inference.model_files import ROLES
from tests.integration.delivery_command import write_catalogue
from tests.integration.fake_hub import Cut, FakeHub
from tests.integration.processes import Process
from tests.integration.test_inference_service import Worker, connected, packets_of
from tests.unit.inference.clips import make_clip, read_clip

pytestmark = pytest.mark.integration

REPOSITORY = "someone/nano"
PUBLISHED = {"pos_emb": "pos_emb.pt", "vae": "ema_vae.pth", "dit": "nano_fp16.safetensors"}
"""The embedded model's weights, in the forms that large models are published in."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    for role, file in PUBLISHED.items():
        tensors = load_file(EMBEDDED_DIRECTORY / "nano" / f"{role}.safetensors")
        if role == "dit":
            (tmp_path / file).write_bytes((EMBEDDED_DIRECTORY / "nano" / "dit.safetensors").read_bytes())
        else:
            torch.save(tensors["pos_emb"] if role == "pos_emb" else tensors, tmp_path / file)
    with FakeHub() as hub:
        for file in PUBLISHED.values():
            hub.add(REPOSITORY, file, (tmp_path / file).read_bytes())
        yield hub


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "models"


def models_command(volume: Path, hub: FakeHub, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The models command, with a catalogue that has nano on the hub, and its environment."""
    files = tuple(SourceFile(role=role, repository=REPOSITORY, file=PUBLISHED[role]) for role in ROLES)
    write_catalogue(volume.parent / "catalogue.json", {"nano": ModelSet(name="nano", title="Nano", files=files)})
    settings = {"DIRECTORY": str(volume), "ENDPOINT": hub.endpoint, "PAUSE_S": "0.01"}
    command = [sys.executable, "-m", "tests.integration.delivery_command", str(volume.parent / "catalogue.json"), *arguments]
    return command, os.environ | {f"SEEDVR2_MODELS_{name}": value for name, value in settings.items()}


def models(volume: Path, hub: FakeHub, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    command, environment = models_command(volume, hub, *arguments)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


async def test_a_fetched_model_is_converted_verified_loaded_and_restores(hub: FakeHub, volume: Path, tmp_path: Path):
    hub.next("GET", PUBLISHED["dit"], Cut(1_000_000))
    fetched = models(volume, hub, "fetch", "nano")
    assert fetched.returncode == 0, fetched.stderr
    assert {path.name for path in (volume / "nano").iterdir()} == {
        "complete.json", "dit.safetensors", "vae.safetensors", "pos_emb.safetensors",
    }  # fmt: skip
    assert models(volume, hub, "verify", "nano").stdout == "nano is whole\n"
    worker = Worker(tmp_path / "worker", model="nano", model_directory=volume)
    try:
        async with connected(worker) as calls:
            status = await calls.until_state("ready")
            assert status.models[0].weight_format == "safetensors-bf16 from safetensors-f16"
            marker = Volume(volume).ready("nano")
            assert marker
            assert status.facts["sha256.dit.safetensors"] == marker.sha256["dit.safetensors"]
            while not (installed := (await calls.status()).installed):
                await asyncio.sleep(0.05)
            assert {"nano", "seedvr2-3b"} <= {model.name for model in installed}
            clip = read_clip(make_clip(frames=5))
            talk = calls.restore(await calls.task(clip), packets_of(clip))
            await talk.hold()
            assert talk.done
            assert talk.done.frames == 5
    finally:
        worker.end()


async def test_a_worker_refuses_a_file_that_changed_on_the_volume(hub: FakeHub, volume: Path, tmp_path: Path):
    assert models(volume, hub, "fetch", "nano", "--no-convert").returncode == 0
    with (volume / "nano" / "dit.safetensors").open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x01\x02")
    worker = Worker(tmp_path / "worker", model="nano", model_directory=volume)
    try:
        async with connected(worker) as calls:
            status = await calls.until_state("broken")
            assert "dit.safetensors in" in status.detail
            assert "changed since the model was fetched" in status.detail
    finally:
        worker.end()


@pytest.mark.parametrize("lacks", ["everything", "a file"])
async def test_a_worker_without_its_model_ends_with_the_command_that_brings_it(lacks: str, volume: Path, tmp_path: Path):
    if lacks == "a file":
        (volume / "seedvr2-3b").mkdir(parents=True)
        (volume / "seedvr2-3b" / "dit.pth").touch()
    settings = {"model": "seedvr2-3b", "model_directory": volume}
    worker = Process("services.inference", "SEEDVR2_INFERENCE", tmp_path / "worker", **settings)
    await worker.start(ready=False)
    assert await worker.wait() == 2
    assert f"`seedvr2 models fetch seedvr2-3b --directory {volume}`" in worker.log


def test_a_conversion_that_is_killed_leaves_no_process_and_is_made_again_without_a_download(hub: FakeHub, volume: Path):
    command, environment = models_command(volume, hub, "fetch", "nano")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        line = next(line for line in map(json.loads, process.stderr) if line.get("stage") == "converting")
        while not (children := psutil.Process(process.pid).children()):
            time.sleep(0.01)
        process.kill()
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        time.sleep(0.05)
    transfers = len(hub.transfers)
    fetched = models(volume, hub, "fetch", "nano")
    assert fetched.returncode == 0, fetched.stderr
    assert line["file"] not in [asked.path.rpartition("/")[2] for asked in hub.transfers[transfers:]]
    assert len(list((volume / "nano").iterdir())) == 4
    assert models(volume, hub, "verify", "nano").returncode == 0
