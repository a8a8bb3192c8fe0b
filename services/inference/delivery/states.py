"""How every model is on a volume, for the list that people and the API see. Asks no network and changes nothing."""

from pathlib import Path

from services.common.fleet import ModelState
from services.inference.delivery.catalogue import CATALOGUE, EMBEDDED_DIRECTORY, Catalogue, ModelSet
from services.inference.delivery.files import size_of
from services.inference.delivery.volume import Volume


def model_states(
    directory: Path, *, catalogue: Catalogue = CATALOGUE, embedded_directory: Path = EMBEDDED_DIRECTORY
) -> tuple[ModelState, ...]:
    """Of all models of the catalogue, by their markers and the sizes of their files; no content is read.

    Args:
        directory: of the models; need not be there.
        embedded_directory: of the models that are part of this software.
    """
    volume = Volume(directory)
    return tuple(_state(model, volume, embedded_directory) for model in catalogue.values())


def _state(model: ModelSet, volume: Volume, embedded_directory: Path) -> ModelState:
    if model.embedded:
        sizes = [size_of(embedded_directory / model.name / each.file) for each in model.files]
    else:
        marker = volume.ready(model.name)
        sizes = [record.size_bytes for record in marker.files] if marker else []
    if sizes and all(sizes):
        return ModelState(name=model.name, title=model.title, state="ready", size_bytes=sum(sizes))
    return ModelState(name=model.name, title=model.title, state=_why_not_ready(model, volume))


def _why_not_ready(model: ModelSet, volume: Volume) -> str:
    if volume.has_parts(model.name):
        return "fetching" if volume.is_fetching(model.name) else "incomplete"
    if model.embedded or volume.marker(model.name):
        return "broken"
    return "foreign" if volume.has_foreign_files(model.name) else "absent"
