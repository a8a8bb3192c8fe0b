"""How every model is on a volume."""

from pathlib import Path

from services.inference.delivery.catalogue import CATALOGUE
from services.inference.delivery.states import model_states


def test_on_an_empty_volume_only_the_embedded_model_is_ready(tmp_path: Path):
    states = {each.name: each.state for each in model_states(tmp_path / "not-there")}
    assert states == {"nano": "ready"} | {name: "absent" for name in CATALOGUE if name != "nano"}
    assert not list(tmp_path.iterdir())


def test_an_embedded_model_without_its_files_is_broken(tmp_path: Path):
    assert model_states(tmp_path, embedded_directory=tmp_path)[0].state == "broken"


def test_files_that_nobody_fetched_are_foreign(tmp_path: Path):
    (tmp_path / "seedvr2-3b").mkdir()
    (tmp_path / "seedvr2-3b" / "dit.safetensors").write_bytes(b"x")
    states = {each.name: each.state for each in model_states(tmp_path)}
    assert states["seedvr2-3b"] == "foreign"
