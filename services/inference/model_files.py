"""The files of a model's directory: one rule how they are found, for delivery, worker and loader. Looks at names only.

A model is three files, ``dit.*``, ``vae.*`` and ``pos_emb.*``: the stem says what a file is, its content says what kind it is of,
and its ending says nothing. Everything else in the directory is ignored.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from services.common.errors import ModelBroken

Role = Literal["dit", "vae", "pos_emb"]
"""What a file is in its model: transformer, autoencoder, positive text embedding."""

ROLES: tuple[Role, ...] = get_args(Role)

DEFAULT_DIRECTORY = "~/.local/share/seedvr2/models"
"""Where models are kept unless a setting names another directory; ~ is the user's home."""


def named_directory(setting: str) -> Path:
    """The directory of models that a setting names; empty: the default."""
    # Unlike pathlib's it leaves ~ as it is where nobody's home is known, as in some containers.
    return Path(os.path.expanduser(setting or DEFAULT_DIRECTORY))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model whose files are all there."""

    dit: Path
    """The transformer."""

    vae: Path
    """The autoencoder."""

    pos_emb: Path
    """The positive text embedding."""

    def __iter__(self) -> Iterator[Path]:
        return iter((self.dit, self.vae, self.pos_emb))


def find_files(directory: Path) -> ModelFiles:
    """The files of the model in a directory.

    Raises:
        ModelBroken: there is no such directory, one of them is missing, or it is not clear which is meant.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_file())
    except OSError as error:
        raise ModelBroken(f"The model directory {directory} can't be read: {error.strerror}.") from error
    return ModelFiles(**{role: _only(directory, role, [path for path in paths if path.stem == role]) for role in ROLES})


def _only(directory: Path, role: Role, found: list[Path]) -> Path:
    if not found:
        raise ModelBroken(f"{directory} has no {role}.*; a model is one file each of {', '.join(f'{each}.*' for each in ROLES)}.")
    if len(found) > 1:
        raise ModelBroken(f"{directory} has {' and '.join(path.name for path in found)}; leave one of them there.")
    return found[0]
