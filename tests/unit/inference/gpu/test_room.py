from pathlib import Path

import psutil
import pytest
import torch

from services.inference.gpu.room import _left_in_group, available_bytes


def test_what_the_machine_has_left_and_this_process_holds_is_available():
    found, process = available_bytes(torch.device("cpu")), psutil.Process()
    most = psutil.virtual_memory().available + process.memory_info().rss
    assert process.memory_info().rss < found < 1.2 * most


def test_processes_that_share_a_machine_count_on_their_share_of_what_is_left():
    alone, shared = (available_bytes(torch.device("cpu"), neighbours) for neighbours in (0, 3))
    own = psutil.Process().memory_info().rss
    assert (shared - own) / (alone - own) == pytest.approx(1 / 4, rel=0.1)


def test_a_container_leaves_what_its_limit_leaves(tmp_path: Path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 50\n")
    assert _left_in_group(tmp_path) == 350


@pytest.mark.parametrize("limit", ["max", None])
def test_without_a_limit_a_container_leaves_everything(tmp_path: Path, limit: str | None):
    if limit:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("700")
        (tmp_path / "memory.stat").write_text("inactive_file 50")
    assert _left_in_group(tmp_path) > 1 << 60
