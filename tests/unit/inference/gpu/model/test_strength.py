import pytest
import torch

from services.inference.gpu.model.sampler import NOISES, latent_noise, resolution_shift
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.strength import weaken_frames, weaken_latents

VAE = SPECS["seedvr2-3b"].vae
FRAMES = torch.zeros(3, 3, 40, 48)
LATENTS = torch.full((2, 8, 10, 16), 3.0)


def _latents(strength: float, *, seed: int = 7, indices: tuple[int, ...] = (4, 8), way: str = NOISES[0]) -> torch.Tensor:
    picked = LATENTS[: len(indices)]
    return weaken_latents(picked, strength, way=way, seed=seed, source_indices=indices, vae=VAE)


def test_strength_0_changes_nothing() -> None:
    assert weaken_frames(FRAMES, 0, seed=7, first_frame=0) is FRAMES
    assert _latents(0).equal(LATENTS)


def test_noise_on_frames_is_as_strong_as_it_says() -> None:
    for strength in (0.2, 1.0):
        noise = weaken_frames(FRAMES, strength, seed=7, first_frame=0)
        assert float(noise.std()) == pytest.approx(0.025 * strength, rel=0.03)
        assert abs(float(noise.mean())) < 0.001


def test_a_frame_has_its_noise_wherever_it_comes() -> None:
    together = weaken_frames(FRAMES, 0.5, seed=7, first_frame=10)
    assert weaken_frames(FRAMES[:1], 0.5, seed=7, first_frame=11).equal(together[1:2])
    assert not together[0].equal(together[1])
    assert not weaken_frames(FRAMES, 0.5, seed=8, first_frame=10).equal(together)


def test_latents_go_towards_noise_by_the_shift_of_their_size() -> None:
    shift = resolution_shift((2, 8, 10), spatial_factor=8, temporal_factor=4)
    share = shift * 0.4 / (1 + (shift - 1) * 0.4)
    noise = _latents(1.0)
    torch.testing.assert_close(_latents(0.4), (1 - share) * LATENTS + share * noise)
    assert float(noise.std()) == pytest.approx(1.0, rel=0.05)
    assert abs(float(noise.mean())) < 0.1


def test_a_latent_has_its_noise_in_every_window() -> None:
    assert _latents(1.0, indices=(8, 12))[0].equal(_latents(1.0, indices=(4, 8))[1])


def test_one_noise_for_all_is_one_noise_here_too() -> None:
    first, second = _latents(1.0, way=NOISES[1])
    assert first.equal(second)


def test_noise_of_frames_latents_and_samples_is_independent() -> None:
    sampled = latent_noise(7, 4, (8, 10, 16)).flatten()
    conditioned = _latents(1.0, indices=(4,)).flatten()
    framed = weaken_frames(torch.zeros(1, 3, 40, 48), 1.0, seed=7, first_frame=4).flatten()[: len(sampled)]
    correlations = torch.corrcoef(torch.stack([sampled, conditioned, framed]))
    assert (correlations - torch.eye(3)).abs().max() < 0.1
