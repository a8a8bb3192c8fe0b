"""Which files the settings ask for: the catalogue's, or the official ones, at a revision, with the text embedding's place."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from services.common.errors import InvalidOption, SettingsError
from services.inference.delivery.catalogue import Catalogue, ModelSet, SourceFile
from services.inference.delivery.settings import PREFIX, DeliverySettings

_PLACE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^:\s]+))?(:(?P<file>[^\s]+))?")


def model_of(name: str, catalogue: Catalogue) -> ModelSet:
    """The set of a model.

    Raises:
        InvalidOption: there is none of this name.
    """
    try:
        return catalogue[name]
    except KeyError:
        raise InvalidOption(f"There is no model {name!r}; there are {', '.join(catalogue)}.", field="name") from None


def wanted_files(model: ModelSet, settings: DeliverySettings) -> tuple[SourceFile, ...]:
    """The files of a model that is not embedded.

    Raises:
        SettingsError: the setting ``text_embedding`` is neither a file nor a place on the hub.
    """
    listed = model.official if settings.official else model.files
    repository = _main_repository(listed)
    return tuple(_adapted(each, repository, settings) for each in listed)


def check_revision(models: Iterable[ModelSet], settings: DeliverySettings) -> None:
    """Refuse one revision for several repositories.

    Raises:
        SettingsError: no commit belongs to two repositories, so it can't be meant.
    """
    listed = [each.official if settings.official else each.files for each in models if not each.embedded]
    repositories = {_main_repository(each) for each in listed}
    if settings.revision and len(repositories) > 1:
        raise SettingsError(
            f"Revision {settings.revision} can't be of {' and of '.join(sorted(repositories))}: fetch these models one by one.",
            field="revision",
        )


def _main_repository(files: Iterable[SourceFile]) -> str:
    return next(each.repository for each in files if each.role == "dit")


def _adapted(source: SourceFile, repository: str, settings: DeliverySettings) -> SourceFile:
    if source.role == "pos_emb" and settings.text_embedding:
        return _text_embedding(source, settings.text_embedding)
    if source.repository == repository and not source.revision:
        return dataclasses.replace(source, revision=settings.revision)
    return source


def _text_embedding(source: SourceFile, place: str) -> SourceFile:
    if Path(place).is_file():
        return dataclasses.replace(source, path=Path(place))
    named = _PLACE.fullmatch(place)
    if not named:
        raise SettingsError(
            f"{PREFIX}_TEXT_EMBEDDING={place!r} is neither a file that is there nor owner/name[@revision][:file] on the hub.",
            field="text_embedding",
        )
    return dataclasses.replace(
        source, repository=named["repository"], revision=named["revision"] or "", file=named["file"] or source.file
    )
