"""``make bench``: speed, memory and wire overhead of the embedded model on this machine, as Markdown tables."""

import argparse
import asyncio
from collections.abc import Callable

from bench import memory, speed, wire

PARTS: dict[str, Callable[[], None]] = {
    "speed": speed.main,
    "memory": lambda: asyncio.run(memory.main()),
    "wire": lambda: asyncio.run(wire.main()),
}


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all when none is named")
    chosen = parser.parse_args().part or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"{unknown[0]} is no part; the parts are {', '.join(PARTS)}")
    for name in chosen:
        PARTS[name]()


if __name__ == "__main__":
    main()
