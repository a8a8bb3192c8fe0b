from pathlib import Path

import pytest

from services.common.errors import ModelBroken
from services.inference.model_files import DEFAULT_DIRECTORY, find_files, named_directory


def install(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).touch()
    return directory


@pytest.mark.parametrize(
    "names",
    [
        ("dit.safetensors", "vae.safetensors", "pos_emb.safetensors"),
        ("dit.pth", "vae.pth", "pos_emb.pt"),
        ("dit.gguf", "vae.safetensors", "pos_emb.pt"),
    ],
)
def test_a_file_is_found_by_its_stem_whatever_its_ending(names: tuple[str, ...], tmp_path: Path):
    found = find_files(install(tmp_path, *names, "complete.json", "README.md", "dit.safetensors.part", "unedited.pth"))
    assert [path.name for path in found] == list(names)
    assert found.dit == tmp_path / names[0]


@pytest.mark.parametrize("missing", ["dit", "vae", "pos_emb"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path):
    install(tmp_path, *(f"{role}.pth" for role in ("dit", "vae", "pos_emb") if role != missing))
    with pytest.raises(ModelBroken, match=rf"has no {missing}\.\*; a model is one file each of dit\.\*, vae\.\*, pos_emb\.\*"):
        find_files(tmp_path)


def test_two_files_for_one_role_are_refused(tmp_path: Path):
    install(tmp_path, "dit.gguf", "dit.safetensors", "vae.pth", "pos_emb.pt")
    with pytest.raises(ModelBroken, match=r"has dit\.gguf and dit\.safetensors; leave one of them there"):
        find_files(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ModelBroken, match="nowhere can't be read: No such file"):
        find_files(tmp_path / "nowhere")


def test_a_setting_names_a_directory_in_a_home_or_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert named_directory("~/weights") == Path("/home/someone/weights")
    assert named_directory("") == Path("/home/someone/.local/share/seedvr2/models")
    assert named_directory("/mnt/models") == Path("/mnt/models")
    assert DEFAULT_DIRECTORY.startswith("~/")
