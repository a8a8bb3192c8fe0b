"""A model with random weights, made where it will run: for measuring speed and comparing paths, never for pictures."""

import torch
from torch import nn

from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import Kernels
from services.inference.gpu.model.spec import ModelSpec
from services.inference.gpu.model.vae import Vae
from services.inference.gpu.model.weights import Model, kept_type, laid_out
from services.inference.gpu.parallel.mesh import Mesh


def untrained_model(
    spec: ModelSpec, kernels: Kernels, device: torch.device, dtype: torch.dtype, *, seed: int = 0, mesh: Mesh | None = None
) -> Model:
    """All parameters drawn so that activations keep their size and every term matters, as in a trained model.

    Equal devices draw equal parameters, so ranks of a ``mesh`` have the same model.
    """
    with torch.device("meta"):
        dit, vae = Dit(spec.dit, kernels, mesh), Vae(spec.vae, kernels, mesh)
    generator = torch.Generator(device).manual_seed(seed)
    for module in (dit, vae):
        module.to_empty(device=device).requires_grad_(False).eval()
        for name, parameter in module.named_parameters():
            _draw(name, parameter, generator)
            parameter.data = laid_out(parameter.to(kept_type(name, dtype)))
    text = torch.randn((spec.text_tokens, spec.dit.text_width), generator=generator, device=device).to(dtype)
    return Model(spec=spec, dit=dit, vae=vae, text=text, device=device, dtype=dtype, kernels=kernels.report, sha256={})


def _draw(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Weights keep variance, biases and shifts are small, norms and scales lie around 1, gates around 0.3."""
    parameter.normal_(generator=generator)
    leaf = name.rsplit(".", 1)[-1]
    if ("norm" in name and leaf == "weight") or leaf.endswith("scale"):
        parameter.mul_(0.1).add_(1.0)
    elif leaf.endswith("gate"):
        parameter.mul_(0.3)
    elif parameter.ndim > 1:
        parameter.mul_(parameter[0].numel() ** -0.5)
    else:
        parameter.mul_(0.1)
