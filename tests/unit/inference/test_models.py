import fcntl
from pathlib import Path

import pytest

from services.common.errors import SettingsError
from services.inference.delivery.catalogue import CATALOGUE, EMBEDDED_DIRECTORY
from services.inference.delivery.progress import Progress
from services.inference.delivery.volume import FileRecord, Volume
from services.inference.gpu.model.spec import SPECS
from services.inference.messages import RankReady
from services.inference.model_files import ROLES
from services.inference.models import describe, find_model, model_hash

FILES = ("dit.safetensors", "vae.safetensors", "pos_emb.pt")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def install(directory: Path, *files: str) -> Path:
    directory.mkdir(parents=True)
    for file in files:
        (directory / file).write_bytes(b"some")
    return directory


def deliver(directory: Path, name: str) -> Path:
    """A model as a fetch leaves it."""
    staging, records = Volume(directory).staging(name), []
    for file in FILES:
        staging.file(file).write_bytes(b"some")
        record = FileRecord(
            role=ROLES[FILES.index(file)], name=file, size_bytes=4, sha256=f"of {file}", repository="own/weights", file=file,
            revision="", commit="", source_sha256="",
        )  # fmt: skip
        records.append(record)
    staging.publish(records)
    return directory / name


def test_nano_is_always_there_and_its_hashes_are_known():
    found = find_model("nano", "")
    assert found.directory == EMBEDDED_DIRECTORY / "nano"
    assert set(found.sha256) == {"dit.safetensors", "vae.safetensors", "pos_emb.safetensors"}


def test_the_model_directory_goes_before_the_embedded_models(tmp_path: Path):
    assert find_model("nano", str(tmp_path)).directory == EMBEDDED_DIRECTORY / "nano"
    install(tmp_path / "nano", *FILES)
    assert find_model("nano", str(tmp_path)).directory == tmp_path / "nano"


def test_without_a_setting_models_are_looked_for_where_a_fetch_puts_them(tmp_path: Path):
    install(tmp_path / "home/.local/share/seedvr2/models/seedvr2-3b", *FILES)
    assert find_model("seedvr2-3b", "").directory == tmp_path / "home/.local/share/seedvr2/models/seedvr2-3b"


def test_a_delivered_model_is_found_with_its_hashes(tmp_path: Path):
    deliver(tmp_path, "seedvr2-3b")
    assert find_model("seedvr2-3b", str(tmp_path)).sha256 == {file: f"of {file}" for file in FILES}


def test_files_that_someone_put_there_are_taken_as_they_are(tmp_path: Path):
    install(tmp_path / "seedvr2-3b", "dit.gguf", "vae.pth", "pos_emb.pt")
    assert find_model("seedvr2-3b", str(tmp_path)).sha256 == {}


def test_an_unknown_model_is_refused_with_those_that_are_known():
    with pytest.raises(SettingsError, match=r"no model 'micro'; known are nano, .*seedvr2-3b"):
        find_model("micro", "")


def test_a_model_that_is_not_here_is_refused_with_the_command_that_brings_it(tmp_path: Path):
    command = f"`seedvr2 models fetch seedvr2-3b --directory {tmp_path}`"
    with pytest.raises(SettingsError, match=rf"seedvr2-3b is not in {tmp_path}\. Fetch it: {command}"):
        find_model("seedvr2-3b", str(tmp_path))
    with pytest.raises(SettingsError, match="Fetch it: `seedvr2 models fetch seedvr2-3b`"):
        find_model("seedvr2-3b", "")


def test_an_incomplete_model_is_refused_with_what_is_missing(tmp_path: Path):
    install(tmp_path / "nano", *FILES[:-1])
    with pytest.raises(SettingsError, match=r"has no pos_emb\.\*.*fetch the model: `seedvr2 models fetch nano"):
        find_model("nano", str(tmp_path))


def test_a_delivered_model_that_lost_a_file_is_refused(tmp_path: Path):
    (deliver(tmp_path, "seedvr2-3b") / "vae.safetensors").unlink()
    with pytest.raises(SettingsError, match=r"is broken: vae\.safetensors in .* is missing or of another size\. Fetch it again"):
        find_model("seedvr2-3b", str(tmp_path))


def test_a_download_that_nobody_continues_is_refused_with_the_command_that_does(tmp_path: Path):
    Volume(tmp_path).staging("seedvr2-3b")
    with pytest.raises(SettingsError, match=r"on its way to .*, and nobody fetches it now\. Fetch it: "):
        find_model("seedvr2-3b", str(tmp_path))


def test_a_model_that_another_process_fetches_is_refused_with_how_far_that_is(tmp_path: Path):
    Volume(tmp_path).staging("seedvr2-3b")
    progress = Progress(stage="downloading", model="seedvr2-3b", file="d.st", done_bytes=1_000_000, total_bytes=4_000_000)
    Volume(tmp_path).tell(progress)
    with (tmp_path / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match=r"by another process \(downloading d\.st 1\.0 MB of 4\.0 MB \(25 %\)\); wait"):
            find_model("seedvr2-3b", str(tmp_path))


def test_a_model_is_described_by_its_spec_and_by_what_was_loaded():
    ready = RankReady(
        facts={}, device="cpu", dtype="float32", weight_format="float16", parameters=12, sha256={"a": "1"}, memory_bytes=1,
        gpu_memory_bytes=0, passes="stacked", available_bytes=1 << 40,
    )  # fmt: skip
    model = describe("seedvr2-3b", ready)
    assert (model.title, model.dtype, model.parameters, model.hash) == ("SeedVR2 3B", "float32", 12, model_hash({"a": "1"}))
    assert (model.size_multiple, model.temporal_factor, model.colours[0]) == (16, 4, "wavelet")
    assert (model.window_latents, model.overlap_latents) == (21, 2)
    assert model.context_frames % model.temporal_factor == 0 < model.context_frames
    assert describe("nano", ready).size_multiple == 8
    assert describe("seedvr2-7b-sharp", ready).title == "SeedVR2 7B sharp"


def test_every_model_that_can_be_fetched_can_be_loaded():
    assert list(SPECS) == list(CATALOGUE)


def test_a_models_hash_is_that_of_its_files_in_any_order():
    assert model_hash({"a": "1", "b": "2"}) == model_hash({"b": "2", "a": "1"}) != model_hash({"a": "2", "b": "1"})
