import argparse

import pytest
import torch

from bench.gpus import difference_cells, keeps_bound, speed_cells, volume_cells, works
from bench.gpus_work import samples_apart


def row(ranks: int, whole_ms: float, **fields: object) -> dict[str, object]:
    return {
        "model": "seedvr2-3b", "dtype": "bfloat16", "width": 1280, "height": 720, "frames": 10, "ranks": ranks, "split": "heads",
        "ms": {"encode": 1.0, "dit": 2.0, "decode": 3.0}, "whole_ms": whole_ms, "peak_gb": [1.0, 2.0],
        "communication": {"encode": 0.1, "dit": 0.2, "decode": 0.3}, **fields,
    }  # fmt: skip


def test_speed_up_and_efficiency_are_against_one_rank_with_the_same_clip() -> None:
    rows = [row(1, 1000.0, communication={}), row(1, 7.0, frames=9, communication={}), row(4, 312.5)]
    assert speed_cells(rows[2], rows)[8:] == ("31.2", "3.20", "0.80", "2.0", "10%", "20%", "30%")
    assert speed_cells(rows[2], rows[1:])[9:11] == ("", "")


def test_differences_and_volumes_are_readable() -> None:
    difference = {"latents": 1e-6, "restored": 2e-6, "frames": 3e-6, "differing": 0.0015, "largest": 1.0}
    step = {"tokens": 100, "sent": 2.4e6, "expected": 2.4e6, "published": 2e6}
    of_four = row(4, 1.0, difference=difference, step=step)
    assert difference_cells(of_four)[5:] == ("1.0e-06", "2.0e-06", "3.0e-06", "0.150%", "1")
    assert volume_cells(of_four) == ("seedvr2-3b", "1280x720", "100", "4", "heads", "2.40", "2.40", "2.00", "1.20")


def test_fp32_has_a_bound_and_a_number_that_is_none_is_beyond_it() -> None:
    exact = {"latents": 1e-6, "restored": 1e-6, "frames": 9e-6, "differing": 0.001, "largest": 1.0}
    assert keeps_bound(row(2, 1.0, dtype="float32", difference=exact))
    for fault in ({"frames": 2e-5}, {"latents": float("nan")}, {"largest": 2.0}, {"differing": 0.003}):
        assert not keeps_bound(row(2, 1.0, dtype="float32", difference=exact | fault))
        assert keeps_bound(row(2, 1.0, dtype="bfloat16", difference=exact | fault))


def test_one_rank_comes_first_for_every_model() -> None:
    chosen = argparse.Namespace(backend="nccl", models="", quick=True, slice_latents=0)
    planned = [(work.model, work.dtype, work.ranks) for work in works(chosen, [2, 1], "/nowhere")]
    assert planned == [
        ("nano", "float32", 1), ("nano", "float32", 2), ("seedvr2-3b", "bfloat16", 1), ("seedvr2-3b", "bfloat16", 2)
    ]  # fmt: skip


def test_samples_that_differ_are_counted_after_rounding() -> None:
    frames = torch.zeros(1, 3, 2, 2)
    other = frames.clone()
    other[0, 0, 0, 0] = 2.2 / 127.5
    other[0, 0, 0, 1] = 0.1 / 127.5
    assert samples_apart(frames, frames) == {"largest": 0.0, "differing": 0.0}
    assert samples_apart(other, frames) == {"largest": 2.0, "differing": pytest.approx(1 / 12)}
