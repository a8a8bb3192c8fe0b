"""A whole span on several ranks."""

import numpy as np
import pytest

from services.inference.gpu.model.frames import Frames
from services.inference.gpu.parallel.mesh import Mesh
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer
from tests.unit.inference.gpu.goldens import nano
from tests.unit.inference.gpu.ranks import SIZES, Ranks


def restore(mesh: Mesh) -> Frames:
    """Two windows of nano and a bit, in 8 bits."""
    clip = np.random.default_rng(0).integers(0, 256, (19, 6, 8, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    settings = RestoreSettings(width=96, height=72, seed=3, first_frame=0)
    restorer = SpanRestorer(nano(mesh), settings, on_stage=lambda *_: None, checkpoint=lambda: None)
    return np.concatenate([*restorer.push(clip), *restorer.finish()])


@pytest.mark.parametrize("size", SIZES)
def test_a_span_has_the_samples_of_one_rank_up_to_rounding(ranks: Ranks, size: int) -> None:
    expected = restore(Mesh.solo()).astype(int)
    assert expected.std() > 10
    for frames in ranks.run(size, restore):
        difference = np.abs(frames - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.002
