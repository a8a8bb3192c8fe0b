"""How the ranks of a worker share its work. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelLayout:
    """Ranks in groups of equal size; each group restores a span at a time."""

    world_size: int
    """Ranks of the worker, one per GPU."""

    sequence: int
    """Ranks of a group: they share the tokens and the frames of one span."""

    machines: int = 1
    """That the ranks are on, as many on each."""

    def __post_init__(self) -> None:
        if min(self.world_size, self.sequence) < 1:
            raise ValueError(f"a layout of {self.world_size} ranks in groups of {self.sequence}; both must be at least 1")
        if self.world_size % self.sequence:
            fitting = ", ".join(str(n) for n in range(1, self.world_size + 1) if self.world_size % n == 0)
            raise ValueError(
                f"{self.world_size} ranks can't be divided into groups of {self.sequence}; sequence must be one of {fitting}"
            )
        if self.machines > 1 and self.sequence != self.world_size:
            # A group on one machine needs no other one: a worker of its own does as well, and fails alone.
            raise ValueError(
                f"all {self.world_size} ranks of {self.machines} machines must share a span; leave sequence 0, "
                "or let each machine be a worker"
            )

    @property
    def groups(self) -> int:
        """Spans that the worker restores at a time."""
        return self.world_size // self.sequence

    @property
    def ranks_here(self) -> int:
        """Ranks of one machine."""
        return self.world_size // self.machines


def layout_of(*, ranks: int, sequence: int, machines: int = 1) -> ParallelLayout:
    """A layout of so many ``ranks`` on each machine, in which a ``sequence`` of 0 means one group of all. Raises ValueError."""
    world_size = ranks * machines
    return ParallelLayout(world_size=world_size, sequence=sequence or world_size, machines=machines)
