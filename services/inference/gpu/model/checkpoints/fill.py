"""From a checkpoint into a module that was built without memory for its weights."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints.checkpoint import Checkpoint, Shape
from services.inference.gpu.model.checkpoints.keys import few

TypeOf = Callable[[str], torch.dtype]
"""From a key to the type that its weight is kept in."""


def fill(
    module: nn.Module,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype | TypeOf,
    arrange: Callable[[Tensor], Tensor] = lambda weight: weight,
) -> None:
    """Give a module, best built on the meta device, all its weights, one after the other.

    Nothing is held twice: a weight goes from the file to where it stays. Buffers must be in the file but are not read, because
    they follow from formulas and files hold them too coarsely: they keep the module's values, and one that has none yet
    becomes NaN, so that a use of it shows.

    Args:
        module: weights are replaced; half-filled if an error is raised.
        checkpoint: keys and shapes exactly those of the module's state dict.
        device: where weights and buffers end up.
        dtype: of the weights, one for all or each by its key; buffers keep theirs.
        arrange: gives a weight that is in its place the strides that it shall have.

    Raises:
        ModelBroken: the checkpoint is not of this model, or can't be read.
    """
    own: dict[str, Tensor] = module.state_dict(keep_vars=True)
    check_fit(checkpoint, {key: tuple(tensor.shape) for key, tensor in own.items()})
    for key in checkpoint.keys:
        parent, _, name = key.rpartition(".")
        holder = module.get_submodule(parent)
        if isinstance(own[key], nn.Parameter):
            kept = dtype if isinstance(dtype, torch.dtype) else dtype(key)
            weight = checkpoint.read(key, device=device, dtype=kept)
            holder.register_parameter(name, nn.Parameter(arrange(weight), requires_grad=False))
        else:
            holder.register_buffer(name, _unread(own[key], device))


def _unread(buffer: Tensor, device: torch.device) -> Tensor:
    return torch.full_like(buffer, torch.nan, device=device) if buffer.is_meta else buffer.to(device)


def check_fit(checkpoint: Checkpoint, own: Mapping[str, Shape]) -> None:
    """Refuse a file that doesn't hold exactly these tensors. Raises ModelBroken."""
    missing = [key for key in own if key not in checkpoint.shapes]
    unknown = [key for key in checkpoint.keys if key not in own]
    other = [
        f"{key} is {shape} and should be {own[key]}"
        for key, shape in checkpoint.shapes.items()
        if key in own and shape != own[key]
    ]
    problems = [
        f"{what} ({few(keys)})"
        for what, keys in (
            (f"it lacks {len(missing)} tensors", missing),
            (f"it has {len(unknown)} unknown ones", unknown),
            (f"{len(other)} are of another shape", other),
        )
        if keys
    ]
    if problems:
        raise ModelBroken(
            f"{checkpoint.path} is not a checkpoint of this model: {'; '.join(problems)}. Use the file that belongs to the model."
        )
