"""The autoencoder's fast path without its kernels: merged upsamplers, past frames, the 2-D network, against ``vae.py``."""

import pytest
import torch
from torch import nn

from services.inference.gpu.model.fast.vae import FastVae
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import VaeSpec
from services.inference.gpu.model.vae import Vae, VaeState
from tests.unit.inference.gpu.model.fast.reference import ReferenceFrameOps

OFFICIAL = VaeSpec(
    channels=(8, 12, 16, 16),
    blocks_per_level=2,
    latent_channels=4,
    norm_groups=4,
    temporal_levels=2,
    causal_first_conv=True,
    mid_attention=True,
    scaling_factor=0.9,
)
SMALL = VaeSpec(
    channels=(8, 16, 16),
    blocks_per_level=1,
    latent_channels=4,
    norm_groups=1,
    temporal_levels=0,
    causal_first_conv=False,
    mid_attention=False,
    scaling_factor=1.0,
)
SPECS = pytest.mark.parametrize("spec", [OFFICIAL, SMALL], ids=["official", "small"])


def random_vae(spec: VaeSpec) -> Vae:
    """fp64, so that what differs by more than 1e-12 differs in mathematics."""
    torch.manual_seed(0)
    vae = Vae(spec, choose_kernels(torch.device("cpu"), torch.float64)).double().requires_grad_(False)
    for name, parameter in vae.named_parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
        if "norm" in name and name.endswith("weight"):
            parameter.add_(1.0)
        elif parameter.ndim > 1:
            parameter.mul_(2.5 / parameter[0].numel() ** 0.5)
    return vae


def run(step, pieces):
    state = VaeState()
    with torch.inference_mode():
        return torch.cat([step(piece, state) for piece in pieces])


def assert_close(mine, expected):
    assert mine.shape == expected.shape
    scale = expected.abs().max()
    assert scale > 0.1
    assert (mine - expected).abs().max() / scale < 1e-6


@SPECS
@pytest.mark.parametrize("slices", [(1,), (5,), (1, 8, 4)], ids=str)
def test_frames_encode_to_the_moments_of_the_plain_path(spec, slices):
    vae = random_vae(spec)
    frames = torch.rand(sum(slices), 3, 16, 24, dtype=torch.float64) * 2 - 1
    pieces = frames.split(slices)
    assert_close(run(FastVae(vae, ReferenceFrameOps()).moments, pieces), run(vae.moments, pieces))


@SPECS
@pytest.mark.parametrize("slices", [(1,), (1, 1, 1), (1, 2, 2), (4, 1)], ids=str)
def test_latents_decode_to_the_frames_of_the_plain_path(spec, slices):
    vae = random_vae(spec)
    latents = torch.randn(sum(slices), 2, 3, 4, dtype=torch.float64)
    pieces = latents.split(slices)
    fast = FastVae(vae, ReferenceFrameOps())
    mine = run(lambda z, state: fast.decode(z.permute(0, 3, 1, 2) / spec.scaling_factor, state), pieces)
    assert_close(mine, run(vae.decode, pieces))


def test_two_streams_taking_turns_do_not_see_each_other():
    vae = random_vae(OFFICIAL)
    fast = FastVae(vae, ReferenceFrameOps())
    clips = torch.randn(2, 3, 4, 3, 4, dtype=torch.float64)
    states = VaeState(), VaeState()
    with torch.inference_mode():
        turns = [[fast.decode(clip[i : i + 1], state) for clip, state in zip(clips, states, strict=True)] for i in range(3)]
    for index, clip in enumerate(clips):
        assert_close(torch.cat([turn[index] for turn in turns]), run(fast.decode, [clip]))


def test_the_input_stays_as_it_was():
    vae = random_vae(OFFICIAL)
    frames = torch.rand(5, 3, 16, 16, dtype=torch.float64)
    before = frames.clone()
    run(FastVae(vae, ReferenceFrameOps()).moments, [frames])
    assert torch.equal(frames, before)
