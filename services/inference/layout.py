"""How the ranks of a worker share its work. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelLayout:
    """Ranks in groups of equal size; each group restores a span at a time."""

    world_size: int
    """Ranks of the worker, one per GPU."""

    sequence: int
    """Ranks of a group: they share the tokens and the frames of one span."""

    def __post_init__(self) -> None:
        if min(self.world_size, self.sequence) < 1:
            raise ValueError(f"a layout of {self.world_size} ranks in groups of {self.sequence}; both must be at least 1")
        if self.world_size % self.sequence:
            fitting = ", ".join(str(n) for n in range(1, self.world_size + 1) if self.world_size % n == 0)
            raise ValueError(
                f"{self.world_size} ranks can't be divided into groups of {self.sequence}; sequence must be one of {fitting}"
            )

    @property
    def groups(self) -> int:
        """Spans that the worker restores at a time."""
        return self.world_size // self.sequence


def layout_of(*, ranks: int, sequence: int) -> ParallelLayout:
    """A layout in which a ``sequence`` of 0 means one group of all ranks. Raises ValueError."""
    return ParallelLayout(world_size=ranks, sequence=sequence or ranks)
