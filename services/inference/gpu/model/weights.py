"""Loading a model: files to modules, nothing missing, nothing left over."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from services.common.errors import ModelBroken
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import DIT_FILE, MODEL_FILES, TEXT_FILE, TEXT_KEY, VAE_FILE, ModelSpec
from services.inference.gpu.model.vae import Vae


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A model set in memory, ready to run."""

    spec: ModelSpec
    """What it is made of."""

    dit: Dit
    """The transformer."""

    vae: Vae
    """The autoencoder."""

    text: Tensor
    """(tokens, width) positive text embedding."""

    device: torch.device
    """Where it is."""

    dtype: torch.dtype
    """What it computes in."""

    kernels: dict[str, str]
    """Which kernels were chosen, by purpose."""

    sha256: dict[str, str]
    """Of each file, by name."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """What decides the rounding and the values of its results, as plain text."""
        files = {f"sha256.{name}": digest for name, digest in self.sha256.items()}
        kernels = {f"kernel.{purpose}": kernel for purpose, kernel in self.kernels.items()}
        return {"model": self.spec.name, "dtype": str(self.dtype).removeprefix("torch."), **kernels, **files}


def load_model(spec: ModelSpec, directory: Path, device: torch.device, dtype: torch.dtype) -> Model:
    """Read a model set from a directory.

    Raises:
        ModelBroken: a file is missing or damaged, or doesn't hold exactly the tensors of this model.
    """
    kernels = choose_kernels(device, dtype)
    with torch.device("meta"):
        dit, vae = Dit(spec.dit, kernels), Vae(spec.vae, kernels)
    _fill(dit, directory / DIT_FILE, device, dtype)
    _fill(vae, directory / VAE_FILE, device, dtype)
    # Strides of the weights as the convolutions want them.
    for parameter in vae.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return Model(
        spec=spec,
        dit=dit,
        vae=vae,
        text=_read_text(spec, directory / TEXT_FILE, device).to(dtype),
        device=device,
        dtype=dtype,
        kernels=kernels.report,
        sha256={name: _sha256(directory / name) for name in MODEL_FILES},
    )


def _fill(module: nn.Module, path: Path, device: torch.device, dtype: torch.dtype) -> None:
    tensors = _read(path, device)
    _check(path, {key: value.shape for key, value in module.state_dict().items()}, tensors)
    module.load_state_dict({key: value.to(_stored_type(key, dtype)) for key, value in tensors.items()}, strict=True, assign=True)
    module.requires_grad_(False).eval()


def _stored_type(key: str, dtype: torch.dtype) -> torch.dtype:
    # Modulation vectors are added to an fp32 embedding; rounding them first would cost accuracy and save nothing.
    return torch.float32 if ".ada." in key or key.startswith("vid_out_ada.") else dtype


def _read(path: Path, device: torch.device) -> dict[str, Tensor]:
    try:
        return load_file(path, device=str(device))
    except FileNotFoundError:
        raise ModelBroken(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ModelBroken(f"{path} can't be read: {error}") from error


def _check(path: Path, expected: dict[str, torch.Size], found: dict[str, Tensor]) -> None:
    faults = [f"{key} is missing" for key in expected.keys() - found.keys()]
    faults += [f"{key} is unknown" for key in found.keys() - expected.keys()]
    faults += [
        f"{key} is {list(found[key].shape)}, not {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key].shape != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ModelBroken(f"{path} is not of this model: {'; '.join(sorted(faults)[:3])}{more}")


def _read_text(spec: ModelSpec, path: Path, device: torch.device) -> Tensor:
    tensors = _read(path, device)
    _check(path, {TEXT_KEY: torch.Size((spec.text_tokens, spec.dit.text_width))}, tensors)
    return tensors[TEXT_KEY]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
