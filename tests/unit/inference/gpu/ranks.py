"""Real processes that work as the ranks of a group. They are started once and form a new group for every call."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from services.common.errors import WorkerBroken
from services.inference.gpu.parallel.mesh import Mesh

MOST = 4
SIZES = (2, 3, 4)


class Ranks:
    """Up to four processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(MOST)]
        self._calls = 0

    def run(self, size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``work(mesh, *arguments)``, a function of a test module, gives on each rank."""
        self._calls += 1
        meeting = f"file://{self._directory}/{self._calls}"
        processes = self._processes[:size]
        results = [process.submit(_work, rank, size, meeting, work, arguments) for rank, process in enumerate(processes)]
        wait(results, timeout=60)
        # Only now: a rank that leaves early takes connections away from those that still read.
        wait([process.submit(_leave) for process in processes])
        failed = [error for result in results if (error := result.exception(0))]
        if failed:
            raise next((error for error in failed if not isinstance(error, WorkerBroken)), failed[0])
        return [result.result() for result in results]

    def close(self) -> None:
        for process in self._processes:
            process.shutdown()


_meshes: list[Mesh] = []


def _work(rank: int, size: int, meeting: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    _meshes.append(Mesh.join(rank, size, device=torch.device("cpu"), init_method=meeting, timeout_s=15))
    with torch.inference_mode():
        return work(_meshes[-1], *arguments)


def _leave() -> None:
    while _meshes:
        _meshes.pop().close()


def apart(mine: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 distance; NaN where either is not a number."""
    assert mine.shape == expected.shape
    assert expected.norm() > 0
    return float((mine - expected).norm() / expected.norm())
