"""Blocks that wait in host memory, with the CPU as the device: the same code, without streams."""

import pytest
import torch
from torch import Tensor

from services.common.errors import JobCancelled
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.fast.dit import FastDit
from tests.unit.inference.gpu.goldens import KERNELS, nano
from tests.unit.inference.gpu.model.fast.reference import ReferenceTokenOps

TIME = torch.tensor(1000.0)


def clip() -> Tensor:
    return torch.randn((2, 8, 12, 33), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def dit() -> Dit:
    return nano().dit


def velocity(dit: Dit, path: str = "plain") -> Tensor:
    x, text = clip(), nano().text
    if path == "plain":
        return dit(x, text, TIME)
    layouts = dit._layouts((2, 4, 6), len(text), x.device)
    return FastDit(dit, ReferenceTokenOps(), KERNELS.attend)(x, text, TIME, layouts, lambda: None)


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_offloaded_blocks_give_the_same_bytes(dit: Dit, path: str):
    expected = velocity(dit, path)
    dit.offload(wanted=True)
    assert torch.equal(velocity(dit, path), expected)
    assert torch.equal(velocity(dit, path), expected)
    dit.offload(wanted=False)
    assert torch.equal(velocity(dit, path), expected)


def test_at_most_three_blocks_are_on_the_device(dit: Dit):
    dit.offload(wanted=True)
    home = [place(block) for block in dit.blocks]
    seen = {place(block) for block in dit.blocks_in_turn()}
    assert len(seen) == 3
    assert not seen & set(home)
    assert [place(block) for block in dit.blocks] == home


def place(block: torch.nn.Module) -> int:
    return next(p for p in block.parameters() if p.ndim > 1).data_ptr()


def test_the_weights_stay_what_they_were(dit: Dit):
    before = {name: value.clone() for name, value in dit.named_parameters()}
    dit.offload(wanted=True)
    velocity(dit)
    assert all(torch.equal(value, before[name]) for name, value in dit.named_parameters())


def test_a_pass_that_is_closed_late_does_not_disturb_the_next(dit: Dit):
    dit.offload(wanted=True)
    home = place(dit.blocks[0])
    stopped, going = dit.blocks_in_turn(), dit.blocks_in_turn()
    next(stopped)
    block = next(going)
    stopped.close()
    assert place(block) != home
    going.close()
    assert place(block) == home


def test_a_pass_that_was_stopped_leaves_nothing_behind(dit: Dit):
    expected, calls = velocity(dit), []

    def stop_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise JobCancelled("stop")

    dit.offload(wanted=True)
    with pytest.raises(JobCancelled):
        dit(clip(), nano().text, TIME, stop_at_the_third)
    assert torch.equal(velocity(dit), expected)
