"""The model sets: which files make a model, where they are published and what they must hash to. Pure data.

No revision is listed, because none was verified: the setting ``revision`` names one. A file without a hash is compared with
the hash that the hub itself states for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.inference.model_files import Role

EMBEDDED_DIRECTORY = Path(__file__).parents[3] / "models"
"""Where models that are part of this software lie, a directory each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of a model and where it comes from."""

    role: Role
    """What it is in the model; its name on the volume begins with it."""

    repository: str
    """``owner/name`` on the hub; empty for an embedded file."""

    file: str
    """Path in the repository."""

    revision: str = ""
    """Branch, tag or commit; empty: the newest."""

    sha256: str = ""
    """Of its content, in hex; empty: none was verified."""

    path: Path | None = None
    """A file of this machine that is taken instead; repository and revision don't count then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSet:
    """A model: everything that must be there before it can be loaded."""

    name: str
    """As users write it."""

    title: str
    """For people."""

    files: tuple[SourceFile, ...]
    """Fetched unless the official ones are asked for."""

    official: tuple[SourceFile, ...] = ()
    """As the model's authors publish them."""

    embedded: bool = False
    """Part of this software: nothing to fetch."""


Catalogue = Mapping[str, ModelSet]

_PORT = "numz/SeedVR2_comfyUI"
_OFFICIAL_3B = "ByteDance-Seed/SeedVR2-3B"
_OFFICIAL_7B = "ByteDance-Seed/SeedVR2-7B"

# Only the content was verified, not that this repository has it; the setting text_embedding names another place.
_TEXT = SourceFile(
    role="pos_emb",
    repository=_OFFICIAL_3B,
    file="pos_emb.pt",
    sha256="fa07a14844314772266b66c3b95deb0027696d8fe7065721263db5176f45d799",
)
_VAE = SourceFile(
    role="vae",
    repository=_PORT,
    file="ema_vae_fp16.safetensors",
    sha256="20678548f420d98d26f11442d3528f8b8c94e57ee046ef93dbb7633da8612ca1",
)


def _dit(file: str, sha256: str) -> SourceFile:
    return SourceFile(role="dit", repository=_PORT, file=file, sha256=sha256)


def _official(repository: str, file: str) -> tuple[SourceFile, ...]:
    dit = SourceFile(role="dit", repository=repository, file=file)
    return _TEXT, dit, SourceFile(role="vae", repository=repository, file="ema_vae.pth")


def _embedded(role: Role, sha256: str) -> SourceFile:
    return SourceFile(role=role, repository="", file=f"{role}.safetensors", sha256=sha256)


# Small files first: what is misconfigured shows before hours of transfer.
CATALOGUE: Catalogue = {
    each.name: each
    for each in (
        ModelSet(
            name="nano",
            title="nano, part of this software",
            files=(
                _embedded("pos_emb", "039cbce7d5da462bd72a684a78a516019a988972af669ca80f1efde6d48c4b29"),
                _embedded("dit", "4222785a9cfd55acd90518d356f3ac317c4e1fc749d8889445b59635d2610c19"),
                _embedded("vae", "40a87a300cf0809ac0d221685d0572e02908d0db5970a92c7d62975e6d2cb300"),
            ),
            embedded=True,
        ),
        ModelSet(
            name="seedvr2-3b",
            title="SeedVR2 3B",
            files=(
                _TEXT,
                _VAE,
                _dit(
                    "seedvr2_ema_3b_fp16.safetensors",
                    "2fd0e03a3dad24e07086750360727ca437de4ecd456f769856e960ae93e2b304",
                ),
            ),
            official=_official(_OFFICIAL_3B, "seedvr2_ema_3b.pth"),
        ),
        ModelSet(
            name="seedvr2-7b",
            title="SeedVR2 7B",
            files=(
                _TEXT,
                _VAE,
                _dit(
                    "seedvr2_ema_7b_fp16.safetensors",
                    "7b8241aa957606ab6cfb66edabc96d43234f9819c5392b44d2492d9f0b0bbe4a",
                ),
            ),
            official=_official(_OFFICIAL_7B, "seedvr2_ema_7b.pth"),
        ),
        ModelSet(
            name="seedvr2-7b-sharp",
            title="SeedVR2 7B, sharper",
            files=(
                _TEXT,
                _VAE,
                _dit(
                    "seedvr2_ema_7b_sharp_fp16.safetensors",
                    "20a93e01ff24beaeebc5de4e4e5be924359606c356c9c51509fba245bd2d77dd",
                ),
            ),
            # The name of this file was not verified.
            official=_official(_OFFICIAL_7B, "seedvr2_ema_7b_sharp.pth"),
        ),
    )
}
"""Every model, by name."""
