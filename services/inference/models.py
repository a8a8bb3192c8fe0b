"""Which models this process can load. Looks at names and files only; weights are read by the ranks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import SettingsError
from services.common.fleet import WorkerModel
from services.inference.delivery.catalogue import EMBEDDED_DIRECTORY
from services.inference.gpu.model.spec import MODEL_FILES, SPECS, ModelSpec
from services.inference.messages import RankReady

COLOURS = ("wavelet", "none")
"""Colour modes of every model, the default first."""

_TITLES = {"nano": "nano, part of this software"}
_DETAILS = {"nano": "A small model for tests and demonstrations: it removes noise, and invents no detail."}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model whose files are all there."""

    name: str
    """As users write it."""

    directory: Path
    """Of its files."""


def find_model(name: str, model_directory: str) -> ModelFiles:
    """The model with a name: in ``model_directory`` if that has it, else among the embedded ones.

    Raises:
        SettingsError: there is no such model, or its files are not all there.
    """
    if name not in SPECS:
        raise SettingsError(f"There is no model {name!r}; known are {', '.join(SPECS)}.", field="model")
    places = [Path(model_directory) / name] if model_directory else []
    places.append(EMBEDDED_DIRECTORY / name)
    directory = next((place for place in places if place.is_dir()), None)
    if directory is None:
        where = " or ".join(str(place) for place in places)
        raise SettingsError(f"The model {name} is not on this machine: there is no {where}.", field="model_directory")
    missing = [file for file in MODEL_FILES if not (directory / file).is_file()]
    if missing:
        raise SettingsError(f"The model {name} is incomplete: {directory} has no {missing[0]}.", field="model_directory")
    return ModelFiles(name=name, directory=directory)


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
        overlap_latents=0,
        parameters=ready.parameters,
        colours=COLOURS,
        detail=_DETAILS.get(name, ""),
    )


def model_hash(sha256: Mapping[str, str]) -> str:
    """One hash over the hashes of a model's files."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(sha256.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _title(spec: ModelSpec) -> str:
    return spec.name.replace("seedvr2-", "SeedVR2 ").replace("-", " ").replace("3b", "3B").replace("7b", "7B")
