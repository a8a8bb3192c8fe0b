import pytest
import torch

from bench.volume import expected_bytes, published_bytes, split_by
from services.inference.gpu.model.dit import Clip
from services.inference.gpu.model.fast.dit import FastDit
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.parallel.mesh import Mesh
from tests.unit.inference.gpu.goldens import KERNELS, nano
from tests.unit.inference.gpu.model.fast.reference import ReferenceTokenOps
from tests.unit.inference.gpu.ranks import Ranks

SHAPE = (3, 10, 14)
TOKENS = 3 * 5 * 7


def sent(mesh: Mesh) -> int:
    model = nano(mesh)
    clip = Clip(torch.zeros(*SHAPE, 33), model.text, torch.tensor(1000.0))
    layouts = model.dit._layouts(model.dit._grid(clip), len(clip.text), clip.x.device)
    FastDit(model.dit, ReferenceTokenOps(), KERNELS.attend)(*clip, layouts, lambda: None)
    return mesh.sent_bytes.total()


@pytest.mark.parametrize("size", [2, 3])
def test_what_a_rank_sends_is_what_arithmetic_says(ranks: Ranks, size: int) -> None:
    spec = SPECS["nano"]
    assert ranks.run(size, sent)[0] == pytest.approx(expected_bytes(spec.dit, TOKENS, spec.text_tokens, size, 4), abs=1)


def test_the_published_volume_of_3b_on_four_ranks() -> None:
    # 3/4 · 4 · 2560 · (1000 + 200) / 4 elements in each of 32 blocks, two bytes each.
    assert published_bytes(SPECS["seedvr2-3b"].dit, 1000, 200, 4, 2) == 32 * 2_304_000 * 2


def test_text_on_all_ranks_costs_little_more_than_dividing_it() -> None:
    facts = (SPECS["seedvr2-3b"].dit, 21 * 45 * 80, 58, 4, 2)
    assert published_bytes(*facts) < expected_bytes(*facts) < 1.02 * published_bytes(*facts)


@pytest.mark.parametrize(("ranks_", "expected"), [(1, ""), (4, "heads"), (8, "windows")])
def test_heads_of_3b_are_divided_where_they_can_be(ranks_: int, expected: str) -> None:
    assert split_by(SPECS["seedvr2-3b"].dit, ranks_) == expected
    assert split_by(SPECS["seedvr2-7b"].dit, 8) == "heads"
