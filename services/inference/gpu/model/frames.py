"""Frames between numpy and the model: sizes, padding in space and time, value ranges."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Frames = NDArray[np.unsignedinteger[Any]]
"""(T, H, W, C), full range, 8 or 16 bits; C: RGB and perhaps transparency."""


def to_unit(frames: Frames, device: torch.device) -> Tensor:
    """(T, H, W, C) whole numbers to (T, C, H, W) fp32 in [0, 1], channels last."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames))
    if device.type == "cuda":
        # From pinned memory the copy waits in the stream instead of making the host wait for it.
        pixels = pixels.pin_memory()
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(np.iinfo(frames.dtype).max)


def quantise(frames: Tensor, bit_depth: int) -> Frames:
    """(T, C, H, W) in [-1, 1] to (T, H, W, C) whole numbers of 8 or 16 bits, clamped and rounded."""
    array: Frames = quantise_on_device(frames, bit_depth).cpu().numpy()
    return array


def quantise_on_device(frames: Tensor, bit_depth: int) -> Tensor:
    """The same on the device where the frames are."""
    top, dtype = (255, torch.uint8) if bit_depth == 8 else (65535, torch.uint16)
    unit = frames.float().clamp(-1.0, 1.0).mul_(0.5).add_(0.5)
    return unit.mul_(top).round_().permute(0, 2, 3, 1).to(dtype).contiguous()


def normalise(frames: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return frames * 2.0 - 1.0


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """(T, 3, H, W) in [0, 1] to (T, 3, height, width): bicubic with antialiasing in fp32, clamped."""
    return frames if frames.shape[-2:] == (height, width) else scale(frames, height, width).clamp_(0.0, 1.0)


def scale(frames: Tensor, height: int, width: int) -> Tensor:
    """The same with its overshoot."""
    return functional.interpolate(frames.float(), (height, width), mode="bicubic", antialias=True, align_corners=False)


def pad_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Repeat the bottom row and the right column until both sides are multiples."""
    return functional.pad(frames, _bottom_right(frames, multiple), mode="replicate")


def pad_black(frames: Tensor, multiple: int) -> Tensor:
    """The same with zeros, black before normalising."""
    return functional.pad(frames, _bottom_right(frames, multiple))


def _bottom_right(frames: Tensor, multiple: int) -> list[int]:
    height, width = frames.shape[-2:]
    return [0, -width % multiple, 0, -height % multiple]


def crop(frames: Tensor, height: int, width: int) -> Tensor:
    """Undo the padding: the top left part."""
    return frames[..., :height, :width]


def crop_to_multiple(frames: Tensor, multiple: int) -> Tensor:
    """Cut equally on all sides until both are multiples, as the released scripts do."""
    height, width = frames.shape[-2:]
    top, left = round(height % multiple / 2), round(width % multiple / 2)
    return frames[..., top : top + height - height % multiple, left : left + width - width % multiple]


def repeat_last(frames: int, temporal_factor: int, group: int = 1) -> list[int]:
    """Frame indices padded to 1 plus a multiple of ``temporal_factor · group`` by repeating the last frame; one stays one."""
    step = temporal_factor * group
    missing = 0 if frames == 1 else -(frames - 1) % step
    return [*range(frames), *[frames - 1] * missing]


def mirror_append(frames: int, count: int) -> list[int]:
    """Frame indices with ``count`` mirrored ones after the last; a clip too short repeats its last frame."""
    if count < frames:
        return [*range(frames), *range(frames - 2, frames - 2 - count, -1)]
    return [*range(frames), *range(frames - 1, 0, -1), *[frames - 1] * (count - frames + 1)]


def mirror_prepend(frames: int, count: int) -> list[int]:
    """Frame indices with ``count`` mirrored ones before the first; a clip too short repeats its last frame in front."""
    mirrored = range(min(count, frames - 1), 0, -1)
    return [*[frames - 1] * (count - len(mirrored)), *mirrored, *range(frames)]


def mirror_to_valid(frames: int) -> list[int]:
    """Frame indices mirrored to 4n + 1."""
    return list(range(frames)) if frames % 4 == 1 else mirror_append(frames, 4 * ((frames - 1) // 4 + 1) + 1 - frames)
