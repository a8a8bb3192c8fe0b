"""Containers looked at by real child processes, with the limits that these tests have in common."""

from pathlib import Path

from services.gateway.container.adapter import Container, ContainerLimits
from services.gateway.source import SourceIndex, SourceInfo

LIMITS = ContainerLimits(memory_bytes=2 << 30, cpu_s=60, silence_s=30, processes=2, max_pixels=4_000_000)


async def look(container: Container, path: Path) -> tuple[SourceInfo, SourceIndex]:
    """What a file holds."""
    info = await container.probe(path)
    return info, await container.index(path, info)
