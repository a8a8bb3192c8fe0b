"""The models of this machine: which one a worker loads, and what it says of it.

As a command, ``python -m services.inference.models list | fetch | verify``, what brings them here. A worker looks at names, sizes
and records only; weights are read by the ranks.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.common.colours import COLOURS
from services.common.errors import ModelBroken, SettingsError
from services.common.fleet import WorkerModel
from services.inference.delivery.catalogue import CATALOGUE, EMBEDDED_DIRECTORY
from services.inference.delivery.display import text_of
from services.inference.delivery.volume import Volume
from services.inference.gpu.model.spec import SPECS, ModelSpec
from services.inference.messages import RankReady
from services.inference.model_files import find_files, named_directory

_TITLES = {"nano": "nano, part of this software"}
_DETAILS = {"nano": "A small model for tests and demonstrations: it removes noise, and invents no detail."}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A model whose files are all there."""

    name: str
    """As users write it."""

    directory: Path
    """Of its files."""

    sha256: Mapping[str, str]
    """Of its files, by name, as they were recorded when they came here; empty where someone else put them here."""


def find_model(name: str, model_directory: str) -> FoundModel:
    """The model with a name: in ``model_directory`` if that has it, else among the embedded ones.

    Raises:
        SettingsError: there is no such model, or its files are not all there; says how to get them.
    """
    if name not in SPECS:
        raise SettingsError(f"There is no model {name!r}; known are {', '.join(SPECS)}.", field="model")
    volume, embedded = Volume(named_directory(model_directory)), EMBEDDED_DIRECTORY / name
    if (volume.directory / name).is_dir():
        return _on_volume(name, volume)
    if embedded.is_dir():
        listed = {each.file: each.sha256 for each in CATALOGUE[name].files}
        return FoundModel(name=name, directory=embedded, sha256=listed)
    raise _not_there(name, volume)


def _on_volume(name: str, volume: Volume) -> FoundModel:
    directory, marker = volume.directory / name, volume.marker(name)
    if marker and not volume.ready(name):
        lost = [record.name for record in marker.files if not volume.has(name, record)]
        raise SettingsError(
            f"The model {name} is broken: {' and '.join(lost)} in {directory} is missing or of another size. "
            f"Fetch it again: {_fetch_command(name, volume)}.",
            field="model_directory",
        )
    try:
        find_files(directory)
    except ModelBroken as error:
        how = f"Complete it, or move it away and fetch the model: {_fetch_command(name, volume)}."
        raise SettingsError(f"The model {name} is incomplete: {error.message} {how}", field="model_directory") from error
    return FoundModel(name=name, directory=directory, sha256=marker.sha256 if marker else {})


def _not_there(name: str, volume: Volume) -> SettingsError:
    place = volume.directory
    if volume.is_fetching(name):
        words = f"is being fetched to {place} by another process ({text_of(volume.told())}); wait until"
        return SettingsError(f"The model {name} {words} `seedvr2 models list` shows it as ready.", field="model_directory")
    begun = "is on its way to" if volume.has_parts(name) else "is not in"
    why = ", and nobody fetches it now" if volume.has_parts(name) else ""
    return SettingsError(
        f"The model {name} {begun} {place}{why}. Fetch it: {_fetch_command(name, volume)}.", field="model_directory"
    )


def _fetch_command(name: str, volume: Volume) -> str:
    where = "" if volume.directory == named_directory("") else f" --directory {volume.directory}"
    return f"`seedvr2 models fetch {name}{where}`"


def describe(name: str, ready: RankReady) -> WorkerModel:
    """What a worker says of the model that its ranks have loaded."""
    spec = SPECS[name]
    return WorkerModel(
        name=name,
        title=_TITLES.get(name, _title(spec)),
        hash=model_hash(ready.sha256),
        dtype=ready.dtype,
        weight_format=ready.weight_format,
        size_multiple=spec.size_multiple,
        temporal_factor=spec.vae.temporal_factor,
        window_latents=spec.window_latents,
        overlap_latents=spec.overlap_latents,
        parameters=ready.parameters,
        colours=COLOURS,
        max_steps=spec.max_steps,
        context_frames=spec.context_frames,
        detail=_DETAILS.get(name, ""),
    )


def model_hash(sha256: Mapping[str, str]) -> str:
    """One hash over the hashes of a model's files."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(sha256.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _title(spec: ModelSpec) -> str:
    return spec.name.replace("seedvr2-", "SeedVR2 ").replace("-", " ").replace("3b", "3B").replace("7b", "7B")


if __name__ == "__main__":
    # Imported here: a worker that looks for its model needs nothing that talks to a hub.
    from services.inference.delivery.command import main

    sys.exit(main(sys.argv[1:], os.environ))
