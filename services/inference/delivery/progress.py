"""How far a delivery is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["waiting", "downloading", "checking", "converting", "ready"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is being done, and to which file."""

    stage: Stage
    """``waiting``: another process of this volume is at work, and the other fields are about its file."""

    model: str = ""
    """Name of the model."""

    file: str = ""
    """As the hub names it."""

    done_bytes: int = 0
    """Of ``total_bytes``."""

    total_bytes: int = 0
    """Of the file; 0: unknown."""


OnProgress = Callable[[Progress], None]
"""Called often: with every piece of a file."""


def size_text(size_bytes: float) -> str:
    """A size for people, in decimal units: ``6.8 GB``."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 1000:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} TB"
