from pathlib import Path

import pytest

from services.common.errors import SettingsError
from services.inference.delivery.catalogue import CATALOGUE, EMBEDDED_DIRECTORY
from services.inference.gpu.model.spec import MODEL_FILES, SPECS
from services.inference.messages import RankReady
from services.inference.models import describe, find_model, model_hash


def install(directory: Path, *files: str) -> Path:
    directory.mkdir(parents=True)
    for file in files:
        (directory / file).touch()
    return directory


def test_nano_is_always_there():
    assert find_model("nano", "").directory == EMBEDDED_DIRECTORY / "nano"


def test_the_model_directory_goes_before_the_embedded_models(tmp_path: Path):
    assert find_model("nano", str(tmp_path)).directory == EMBEDDED_DIRECTORY / "nano"
    install(tmp_path / "nano", *MODEL_FILES)
    assert find_model("nano", str(tmp_path)).directory == tmp_path / "nano"


def test_an_unknown_model_is_refused_with_those_that_are_known():
    with pytest.raises(SettingsError, match=r"no model 'micro'; known are nano, .*seedvr2-3b"):
        find_model("micro", "")


def test_a_model_that_is_not_here_is_refused_with_the_places(tmp_path: Path):
    with pytest.raises(SettingsError, match=rf"not on this machine: there is no {tmp_path}/seedvr2-3b or "):
        find_model("seedvr2-3b", str(tmp_path))


def test_an_incomplete_model_is_refused_with_what_is_missing(tmp_path: Path):
    install(tmp_path / "nano", *MODEL_FILES[:-1])
    with pytest.raises(SettingsError, match=f"has no {MODEL_FILES[-1]}"):
        find_model("nano", str(tmp_path))


def test_a_model_is_described_by_its_spec_and_by_what_was_loaded():
    ready = RankReady(
        facts={}, device="cpu", dtype="float32", weight_format="float16", parameters=12, sha256={"a": "1"}, memory_bytes=1,
        gpu_memory_bytes=0,
    )  # fmt: skip
    model = describe("seedvr2-3b", ready)
    assert (model.title, model.dtype, model.parameters, model.hash) == ("SeedVR2 3B", "float32", 12, model_hash({"a": "1"}))
    assert (model.size_multiple, model.temporal_factor, model.colours[0]) == (16, 4, "wavelet")
    assert describe("nano", ready).size_multiple == 8
    assert describe("seedvr2-7b-sharp", ready).title == "SeedVR2 7B sharp"


def test_every_model_that_can_be_fetched_can_be_loaded():
    assert list(SPECS) == list(CATALOGUE)


def test_a_models_hash_is_that_of_its_files_in_any_order():
    assert model_hash({"a": "1", "b": "2"}) == model_hash({"b": "2", "a": "1"}) != model_hash({"a": "2", "b": "1"})
