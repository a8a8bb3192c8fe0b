"""How every model is on a volume, for the list that people and the API see. Asks no network and changes nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.inference.delivery.catalogue import CATALOGUE, EMBEDDED_DIRECTORY, Catalogue, ModelSet
from services.inference.delivery.files import size_of
from services.inference.delivery.volume import Volume

State = Literal["ready", "broken", "fetching", "incomplete", "foreign", "absent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """How a model is."""

    name: str
    """Of the model."""

    title: str
    """For people."""

    state: State
    """``broken``: something that its marker lists is missing; ``fetching``: a process downloads it; ``incomplete``: a download
    was begun; ``foreign``: files without a marker, put there by someone else."""

    size_bytes: int = 0
    """Of its files, where it is ready."""


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


def _why_not_ready(model: ModelSet, volume: Volume) -> State:
    if volume.has_parts(model.name):
        return "fetching" if volume.is_fetching(model.name) else "incomplete"
    if model.embedded or volume.marker(model.name):
        return "broken"
    return "foreign" if volume.has_foreign_files(model.name) else "absent"
