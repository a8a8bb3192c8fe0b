"""Which files the settings ask for."""

from pathlib import Path

import pytest

from services.common.errors import InvalidOption, SettingsError
from services.inference.delivery.catalogue import CATALOGUE, SourceFile
from services.inference.delivery.settings import DeliverySettings
from services.inference.delivery.wanted import check_revision, model_of, wanted_files


def wanted(name: str = "seedvr2-3b", **settings: object) -> dict[str, SourceFile]:
    return {each.role: each for each in wanted_files(CATALOGUE[name], DeliverySettings(**settings))}  # type: ignore[arg-type]


def test_an_unknown_model_is_answered_with_the_known_ones():
    with pytest.raises(InvalidOption, match="there are nano, seedvr2-3b, seedvr2-7b, seedvr2-7b-sharp") as error:
        model_of("seedvr2-1b", CATALOGUE)
    assert error.value.field == "name"


def test_without_options_the_catalogue_is_wanted():
    assert tuple(wanted().values()) == CATALOGUE["seedvr2-3b"].files


def test_official_files_are_wanted_by_option():
    files = wanted("seedvr2-7b-sharp", official=True)
    assert [files[role].file for role in ("dit", "vae", "pos_emb")] == ["seedvr2_ema_7b_sharp.pth", "ema_vae.pth", "pos_emb.pt"]


def test_a_revision_is_of_the_transformer_s_repository():
    files = wanted(revision="abc")
    assert {role: each.revision for role, each in files.items()} == {"dit": "abc", "vae": "abc", "pos_emb": ""}


def test_one_revision_for_two_repositories_is_refused():
    models = [CATALOGUE["nano"], CATALOGUE["seedvr2-3b"], CATALOGUE["seedvr2-7b"]]
    check_revision(models, DeliverySettings(revision="abc"))
    with pytest.raises(SettingsError, match="can't be of ByteDance-Seed/SeedVR2-3B and of ByteDance-Seed/SeedVR2-7B"):
        check_revision(models, DeliverySettings(revision="abc", official=True))


@pytest.mark.parametrize(
    ("place", "repository", "revision", "file"),
    [
        ("own/weights", "own/weights", "", "pos_emb.pt"),
        ("own/weights:text/p.pt", "own/weights", "", "text/p.pt"),
        ("own/weights@v1.0:p.pt", "own/weights", "v1.0", "p.pt"),
        ("own/we.ig-hts@main", "own/we.ig-hts", "main", "pos_emb.pt"),
    ],
)
def test_the_text_embedding_can_be_anywhere_on_the_hub(place: str, repository: str, revision: str, file: str):
    text = wanted(text_embedding=place)["pos_emb"]
    assert (text.repository, text.revision, text.file, text.path) == (repository, revision, file, None)
    assert text.sha256 == wanted()["pos_emb"].sha256


def test_the_text_embedding_can_be_a_file(tmp_path: Path):
    (tmp_path / "p.pt").write_bytes(b"")
    assert wanted(text_embedding=str(tmp_path / "p.pt"))["pos_emb"].path == tmp_path / "p.pt"


@pytest.mark.parametrize("place", ["/mnt/not-there/pos_emb.pt", "pos_emb.pt", "own/weights:"])
def test_what_is_neither_a_file_nor_a_place_is_refused(place: str):
    with pytest.raises(SettingsError, match="neither a file that is there nor"):
        wanted(text_embedding=place)
