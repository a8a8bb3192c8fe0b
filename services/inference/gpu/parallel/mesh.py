"""The ranks that share a clip, and what they say to each other.

A :class:`Mesh` is made once in a process and passed down to whatever is divided among ranks. All ranks of it call the same
methods in the same order. On one rank every method gives back what it was given, so callers need no case for it. On GPUs
everything waits in the stream; the host waits for nothing.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

from services.common.errors import SettingsError, WorkerBroken

# Tensors on the CPU can be exchanged beside those on the GPU, for what the host must know.
_BACKENDS = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl"}

# PyTorch 2.13 renamed it.
_all_gather_single = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor


class Mesh:
    """One rank's view of its group."""

    def __init__(self, rank: int, size: int, device: torch.device, group: distributed.ProcessGroup | None = None) -> None:
        self.rank = rank
        """Of this process, from 0."""
        self.size = size
        """Ranks in the group."""
        self.device = device
        """Where this rank computes."""
        self.group = group
        """None on one rank."""
        self.sent_bytes: Counter[str] = Counter()
        """Bytes that this rank gave to others since it joined, by method; for a reduction, those of a ring."""

    @classmethod
    def solo(cls, device: torch.device | None = None) -> "Mesh":
        """One rank that works alone."""
        return cls(0, 1, device or torch.device("cpu"))

    @classmethod
    def join(
        cls, rank: int, size: int, *, device: torch.device, init_method: str, backend: str = "", timeout_s: float = 600.0
    ) -> "Mesh":
        """Meet the other ranks. A process can be in one group at a time.

        Args:
            rank: of this process, from 0.
            size: how many processes meet.
            device: where this rank computes; a GPU that no other rank uses, or the CPU.
            init_method: where to meet, as PyTorch takes it: ``tcp://host:port``, or ``file:///path`` of a new file.
            backend: nccl or gloo; by default what suits the device.
            timeout_s: how long to wait for the others here and in every exchange.

        Raises:
            SettingsError: the backend doesn't exist here or doesn't suit the device.
            WorkerBroken: the others didn't come in time.
        """
        if size == 1:
            return cls.solo(device)
        name = backend or ("nccl" if device.type == "cuda" else "gloo")
        _check(name, device)
        with _lost_if_it_fails(f"rank {rank} did not meet the other {size - 1} within {timeout_s:g} s"):
            distributed.init_process_group(
                _BACKENDS[name], rank=rank, world_size=size, init_method=init_method,
                timeout=timedelta(seconds=timeout_s), device_id=device if name == "nccl" else None,
            )  # fmt: skip
        return cls(rank, size, device, distributed.group.WORLD)

    def close(self) -> None:
        """Leave the group; nothing but ``solo`` works after it."""
        if self.group is not None:
            distributed.destroy_process_group(self.group)
            self.group = None

    def broadcast(self, x: Tensor, source: int = 0) -> Tensor:
        """``x`` of the rank ``source``, written into everybody's ``x``, which is contiguous and of one shape and type."""
        if self.size > 1:
            self._count("broadcast", x.nbytes * (self.size - 1) if self.rank == source else 0)
            with self._exchange():
                distributed.broadcast(x, source, group=self.group)
        return x

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over all ranks, written into ``x``, which is contiguous and of one shape and type."""
        if self.size > 1:
            self._count("all_reduce", x.nbytes * 2 * (self.size - 1) // self.size)
            with self._exchange():
                distributed.all_reduce(x, group=self.group)
        return x

    def all_gather(self, x: Tensor, lengths: Sequence[int], dim: int = 0) -> Tensor:
        """All ranks' pieces, one behind the other along ``dim``; ``lengths`` are the pieces' lengths along it, 0 included."""
        if self.size == 1:
            return x
        longest = max(lengths)
        piece = x.movedim(dim, 0).contiguous()
        self._count("all_gather", piece.nbytes * (self.size - 1))
        if len(piece) < longest:
            piece = torch.cat([piece, piece.new_zeros((longest - len(piece), *piece.shape[1:]))])
        pieces = piece.new_empty((self.size * longest, *piece.shape[1:]))
        with self._exchange():
            _all_gather_single(pieces, piece, group=self.group)
        if min(lengths) < longest:
            apart = pieces.view(self.size, longest, *piece.shape[1:])
            pieces = torch.cat([part[:length] for part, length in zip(apart, lengths, strict=True)])
        return pieces.movedim(0, dim).contiguous()

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int], *, out: Tensor | None = None) -> Tensor:
        """Rows of ``x`` to the ranks, ``send`` of them to each in turn; ``receive`` rows come from each.

        Args:
            x: (sum of ``send``, …); rows are alike on all ranks.
            send: rows for each rank, 0 included.
            receive: rows from each rank.
            out: where they go; contiguous.

        Returns:
            (sum of ``receive``, …), in the order of ranks.
        """
        if self.size == 1:
            return x if out is None else out.copy_(x)
        rows = x.contiguous()
        kept = send[self.rank]
        self._count("all_to_all", (len(rows) - kept) * rows[:1].nbytes)
        if out is None:
            out = rows.new_empty((sum(receive), *rows.shape[1:]))
        with self._exchange():
            distributed.all_to_all_single(out, rows, list(receive), list(send), group=self.group)
        return out

    def exchange(self, to_previous: Tensor, to_next: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """A tensor each to the previous and to the next rank, of one shape and type on all ranks.

        Args:
            to_previous: what the previous rank gets.
            to_next: what the next rank gets; None on all ranks where nothing goes there.

        Returns:
            What the previous and the next rank gave; None where there is no rank or nothing came.
        """
        if self.size == 1:
            return None, None
        first, last, down = self.rank == 0, self.rank + 1 == self.size, to_next is not None
        given = [x for x, there in ((to_previous, not first), (to_next, not last)) if x is not None and there]
        rows = torch.stack(given) if given else to_previous.new_empty((0, *to_previous.shape))
        came = self.all_to_all(rows, self._beside(True, down), self._beside(down, True))
        return came[0] if down and not first else None, None if last else came[-1]

    def _beside(self, previous: bool, following: bool) -> list[int]:
        """1 for these neighbours, 0 for all other ranks."""
        wanted = {self.rank - 1: int(previous), self.rank + 1: int(following)}
        return [wanted.get(other, 0) for other in range(self.size)]

    def _count(self, method: str, nbytes: int) -> None:
        self.sent_bytes[method] += nbytes

    def _exchange(self) -> AbstractContextManager[None]:
        return _lost_if_it_fails(f"rank {self.rank} of {self.size} lost the others")


def _check(name: str, device: torch.device) -> None:
    if name not in _BACKENDS:
        raise SettingsError(f"There is no backend {name!r} for ranks; known are {', '.join(_BACKENDS)}.")
    if not (distributed.is_available() and distributed.is_backend_available(name)):
        raise SettingsError(f"This PyTorch was built without {name}, which {device.type} ranks need to work together.")
    if (name == "nccl") != (device.type == "cuda"):
        raise SettingsError(f"Ranks on {device.type} can't work together through {name}.")


@contextmanager
def _lost_if_it_fails(what: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise WorkerBroken(f"The group of ranks is broken: {what}.") from error
