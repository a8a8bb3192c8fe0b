"""Windows of latents for the transformer, and one stream of latents from what it makes of them. Knows no model.

Window k begins at latent k · (length - shared), so neighbours have ``shared`` latents in common. These are mixed, in latent
space, before anything is decoded. The last window would often be short: it begins earlier instead, sees latents again that are
finished already, and adds the missing ones. So every window is full, as the model is used to, and only a stream shorter than
one has a short one. Which latents a window has depends on the stream's length alone.
"""

import math

import torch
from torch import Tensor


def later_weights(shared: int) -> Tensor:
    """(shared,) fp32: the later window's share of each latent that two windows have; a raised cosine without its ends."""
    steps = torch.arange(1, shared + 1, dtype=torch.float32) / (shared + 1)
    return 0.5 - 0.5 * torch.cos(math.pi * steps)


class LatentWindows:
    """Takes the latents of one stream in order and holds no more of them than a window."""

    def __init__(self, length: int, shared: int) -> None:
        """``shared`` is at most half of ``length``: no latent is in three full windows."""
        if length < 1 or not 0 <= 2 * shared <= length:
            raise ValueError(f"windows of {length} latents can't share {shared}")
        self._length = length
        self._shared = shared
        self._recent: Tensor | None = None
        """The last latents that came, at most a window."""
        self._waiting: Tensor | None = None
        """Restored latents that the next window has too."""
        self._count = 0
        """Latents that came."""
        self._covered = 0
        """Latents that are in a window so far."""
        self._given = 0
        """Latents that were given back."""

    @property
    def count(self) -> int:
        """Latents that came."""
        return self._count

    @property
    def room(self) -> int:
        """Latents that are missing until the next window is full."""
        begin = self._covered - self._shared if self._covered else 0
        return begin + self._length - self._count

    @property
    def pending(self) -> int:
        """Latents that are in no window yet."""
        return self._count - self._covered

    def add(self, latents: Tensor) -> None:
        """Take the next latents, (L, h, w, C), at most :attr:`room`."""
        if len(latents) > self.room:
            raise ValueError(f"{len(latents)} latents come where {self.room} fit")
        recent = latents if self._recent is None else torch.cat([self._recent, latents])
        self._recent = recent[-self._length :]
        self._count += len(latents)

    def take(self) -> tuple[int, Tensor]:
        """The window that ends with the latest latent: the index of its first latent, and its latents."""
        if self._recent is None:
            raise ValueError("there is no latent")
        self._covered = self._count
        return self._count - len(self._recent), self._recent

    def join(self, first: int, restored: Tensor) -> Tensor:
        """Take what became of a window that begins at ``first``; gives the latents that no later window changes."""
        new = restored[self._given - first :]
        if self._waiting is not None:
            shared = len(self._waiting)
            weights = later_weights(shared).to(new.device, new.dtype).view(-1, 1, 1, 1)
            new = torch.cat([torch.lerp(self._waiting, new[:shared], weights), new[shared:]])
        finished = max(0, len(new) - self._shared)
        self._waiting = new[finished:] if self._shared else None
        self._given += finished
        return new[:finished]

    def rest(self) -> Tensor | None:
        """The latents that waited for another window, when there is none."""
        rest, self._waiting = self._waiting, None
        self._given += 0 if rest is None else len(rest)
        return rest
