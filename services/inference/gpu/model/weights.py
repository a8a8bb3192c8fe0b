"""Loading a model: files to modules, nothing missing, nothing left over, nothing held twice."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import torch
from torch import Tensor, nn

from services.inference.gpu.model.checkpoints import check_fit, fill, open_checkpoint
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import TEXT_KEY, ModelSpec
from services.inference.gpu.model.vae import Vae
from services.inference.gpu.parallel.mesh import Mesh
from services.inference.model_files import ModelFiles, find_files

_PIECE_BYTES = 8 << 20


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

    weight_format: str = ""
    """How the file of the transformer stores its weights; empty where they come from no file."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """What decides the rounding and the values of its results, as plain text."""
        files = {f"sha256.{name}": digest for name, digest in self.sha256.items()}
        kernels = {f"kernel.{purpose}": kernel for purpose, kernel in self.kernels.items()}
        return {"model": self.spec.name, "dtype": str(self.dtype).removeprefix("torch."), **kernels, **files}


def load_model(spec: ModelSpec, directory: Path, device: torch.device, dtype: torch.dtype, mesh: Mesh | None = None) -> Model:
    """Read a model set from a directory, whatever kind of files it has.

    Weights go piece by piece from the file to their place: the host needs memory for a piece, the device for the model. Ranks of
    the ``mesh`` share each clip; each has all weights.

    Raises:
        ModelBroken: a file is missing or damaged, or doesn't hold exactly the tensors of this model.
    """
    files = find_files(directory)
    kernels = choose_kernels(device, dtype)
    with torch.device("meta"):
        dit, vae = Dit(spec.dit, kernels, mesh), Vae(spec.vae, kernels, mesh)
    with _hashing(files) as sha256:
        _fill(vae, files.vae, device, dtype)
        text = _read_text(spec, files.pos_emb, device, dtype)
        weight_format = _fill(dit, files.dit, device, dtype)
    return Model(
        spec=spec, dit=dit, vae=vae, text=text, device=device, dtype=dtype, kernels=kernels.report,
        sha256=sha256.result(), weight_format=weight_format,
    )  # fmt: skip


def kept_type(key: str, dtype: torch.dtype) -> torch.dtype:
    """The type that a weight is kept in where the model computes in ``dtype``."""
    # Modulation vectors are added to an fp32 embedding; rounding them first would cost accuracy and save nothing.
    return torch.float32 if ".ada." in key or key.startswith("vid_out_ada.") else dtype


def laid_out(weight: Tensor) -> Tensor:
    """A weight with the strides that the convolutions want, values unchanged."""
    return weight.contiguous(memory_format=torch.channels_last_3d) if weight.ndim == 5 else weight


def _fill(module: nn.Module, path: Path, device: torch.device, dtype: torch.dtype) -> str:
    """Give a module its weights; returns the format that they are stored in."""
    with open_checkpoint(path) as checkpoint:
        fill(module, checkpoint, device=device, dtype=lambda key: kept_type(key, dtype), arrange=laid_out)
    module.eval()
    return checkpoint.format


def _read_text(spec: ModelSpec, path: Path, device: torch.device, dtype: torch.dtype) -> Tensor:
    with open_checkpoint(path) as checkpoint:
        check_fit(checkpoint, {TEXT_KEY: (spec.text_tokens, spec.dit.text_width)})
        return checkpoint.read(TEXT_KEY, device=device, dtype=dtype)


@contextmanager
def _hashing(files: ModelFiles) -> Iterator[Future[dict[str, str]]]:
    """Hash files beside the block, which reads the same bytes; an error in the block ends both."""
    stop = Event()
    with ThreadPoolExecutor(max_workers=1) as along:
        try:
            yield along.submit(lambda: {path.name: _sha256(path, stop) for path in files})
        except BaseException:
            stop.set()
            raise


def _sha256(path: Path, stop: Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while not stop.is_set() and (piece := file.read(_PIECE_BYTES)):
            digest.update(piece)
    return digest.hexdigest()
