"""The frozen model sets."""

import hashlib
import re

import pytest

from services.inference.delivery.catalogue import CATALOGUE, EMBEDDED_DIRECTORY, ModelSet
from services.inference.gpu.model.spec import SPECS

FETCHED = [model for model in CATALOGUE.values() if not model.embedded]


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=lambda model: model.name)
def test_a_model_is_a_transformer_an_autoencoder_and_a_text_embedding(model: ModelSet):
    for files in (model.files, model.official) if model.official else (model.files,):
        assert sorted(each.role for each in files) == ["dit", "pos_emb", "vae"]


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=lambda model: model.name)
def test_every_file_of_the_usual_set_has_a_verified_hash(model: ModelSet):
    assert all(re.fullmatch("[0-9a-f]{64}", each.sha256) for each in model.files)


@pytest.mark.parametrize("model", FETCHED, ids=lambda model: model.name)
def test_the_official_set_has_the_same_text_embedding(model: ModelSet):
    hashes = {each.sha256 for each in (*model.files, *model.official) if each.role == "pos_emb"}
    assert len(hashes) == 1


def test_models_are_known_by_the_names_that_the_loader_knows():
    assert set(SPECS) <= set(CATALOGUE)
    assert all(model.name == name for name, model in CATALOGUE.items())


def test_the_embedded_files_are_those_that_the_catalogue_lists():
    for each in CATALOGUE["nano"].files:
        content = (EMBEDDED_DIRECTORY / "nano" / each.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == each.sha256
