import torch
from torch import nn

from services.inference.gpu.model.attention import ByModality, WindowAttention, lay_out
from services.inference.gpu.parallel.mesh import Mesh
from tests.unit.inference.gpu.goldens import CPU, KERNELS, TINY_DIT


def test_a_shared_module_is_stored_once() -> None:
    shared = ByModality(lambda: nn.Linear(2, 2), split=False)
    assert shared.video is shared.text
    assert {key.split(".")[0] for key in shared.state_dict()} == {"all"}


def test_split_modules_are_stored_by_modality() -> None:
    split = ByModality(lambda: nn.Linear(2, 2), split=True)
    assert split.video is not split.text
    assert {key.split(".")[0] for key in split.state_dict()} == {"vid", "txt"}


def test_windows_meet_through_the_text_only() -> None:
    grid, text_tokens = (4, 20, 24), 3
    attention = WindowAttention(TINY_DIT, KERNELS, split=True).requires_grad_(False)
    torch.manual_seed(0)
    for value in attention.parameters():
        value.copy_(torch.randn_like(value) * 0.2)
    layout = lay_out(TINY_DIT, grid, text_tokens, shifted=False, device=CPU, mesh=Mesh.solo())
    video, text = torch.randn(4 * 20 * 24, 64), torch.randn(text_tokens, 64)
    changed = video.clone()
    changed[0] += 1
    (before, text_before), (after, text_after) = attention(video, text, layout), attention(changed, text, layout)
    touched = (before != after).any(-1).view(grid)
    first_window = (slice(0, 1), slice(0, 19), slice(0, 22))
    assert touched[first_window].all()
    assert touched.sum() == touched[first_window].sum()
    assert (text_before != text_after).any(-1).all()
