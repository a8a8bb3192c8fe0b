import math

import pytest
import torch

from services.inference.gpu.model.sampler import condition, euler_step, latent_noise, predict_ends, sample, trailing_timesteps
from tests.unit.inference.gpu.goldens import table, tensors

PINNED = [-0.70093, -0.39715, -0.721339, 0.205213]


@pytest.mark.parametrize(("steps", "expected"), table("dit/schedule")["trailing_timesteps"].items())
def test_timesteps_are_those_of_the_reference(steps: str, expected: list[float]) -> None:
    assert trailing_timesteps(int(steps)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [49, 98, 103, 107, 196, 197])
def test_no_step_is_gained_by_rounding(steps: int) -> None:
    assert len(trailing_timesteps(steps)) == steps


def test_euler_steps_are_those_of_the_reference() -> None:
    golden = tensors("dit/sampler")
    for row, (t, s) in enumerate(zip(golden["t"].tolist(), golden["s"].tolist(), strict=True)):
        clean, noise = predict_ends(golden["x_t"], golden["v"], t)
        torch.testing.assert_close(clean, golden["x0_hat"][row], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(noise, golden["xT_hat"][row], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(euler_step(golden["x_t"], golden["v"], t, s), golden["x_s"][row], atol=1e-6, rtol=1e-6)


def test_one_step_is_noise_minus_velocity() -> None:
    noise, velocity = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(sample(lambda x, t: velocity, noise), noise - velocity)


def test_many_steps_sum_the_velocities() -> None:
    noise, velocity = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    times: list[float] = []

    def velocity_at(x: torch.Tensor, t: float) -> torch.Tensor:
        times.append(t)
        return velocity * t

    restored = sample(velocity_at, noise, steps=4)
    assert times == [1000, 750, 500, 250]
    torch.testing.assert_close(restored, noise - velocity * sum(times) / 4)


def test_the_mask_channel_is_one_everywhere() -> None:
    low_quality = torch.randn(2, 3, 4, 16)
    conditioned = condition(low_quality)
    assert conditioned[..., :16].equal(low_quality)
    assert conditioned[..., 16:].eq(1).all()


def test_noise_depends_on_seed_and_source_index_alone() -> None:
    noise = latent_noise(666, 40, (6, 8, 16))
    torch.manual_seed(1)
    assert latent_noise(666, 40, (6, 8, 16)).equal(noise)
    assert not latent_noise(666, 41, (6, 8, 16)).equal(noise)
    assert not latent_noise(667, 40, (6, 8, 16)).equal(noise)
    assert latent_noise(2**64 - 1, 0, (6, 8, 16)).isfinite().all()


def test_noise_does_not_change_between_releases() -> None:
    # A job that is taken up again by a later release must go on with the same noise.
    assert latent_noise(666, 0, (2, 2, 4)).flatten()[:4].tolist() == pytest.approx(PINNED, abs=1e-6)


def test_noise_is_standard_normal() -> None:
    noise = latent_noise(1, 2, (64, 64, 16))
    assert abs(noise.mean().item()) < 4 / math.sqrt(noise.numel())
    assert noise.std().item() == pytest.approx(1, abs=0.02)
