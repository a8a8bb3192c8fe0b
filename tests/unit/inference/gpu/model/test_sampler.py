import math

import pytest
import torch

from services.common.errors import InvalidOption
from services.inference.gpu.model.sampler import (
    NOISES,
    Guidance,
    condition,
    euler_step,
    guide,
    latent_noise,
    noise_low_quality,
    noise_of,
    predict_ends,
    resolution_shift,
    sample,
    shift_timestep,
    trailing_timesteps,
)
from tests.unit.inference.gpu.goldens import table, tensors

PINNED = [-0.70093, -0.39715, -0.721339, 0.205213]


@pytest.mark.parametrize(("steps", "expected"), table("dit/schedule")["trailing_timesteps"].items())
def test_timesteps_are_those_of_the_reference(steps: str, expected: list[float]) -> None:
    assert trailing_timesteps(int(steps)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("steps", "expected"), table("dit/schedule")["trailing_timesteps_shift3"].items())
def test_a_shift_moves_the_inner_timesteps_only(steps: str, expected: list[float]) -> None:
    assert trailing_timesteps(int(steps), shift=3) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "entry", table("dit/schedule")["condition_noise_timestep"], ids=lambda entry: "x".join(map(str, entry["latent_thw"]))
)
def test_the_time_of_condition_noise_follows_the_size(entry: dict[str, list[float]]) -> None:
    time, height, width = (int(side) for side in entry["latent_thw"])
    # The reference passes (h, w, 16) where (t, h, w) is meant.
    for latent, expected in (((time, height, width), "intended"), ((height, width, 16), "as_called")):
        shift = resolution_shift(latent, spatial_factor=8, temporal_factor=4)
        times = [shift_timestep(1000 * scale, shift) for scale in entry["scale"]]
        assert times == pytest.approx(entry[expected], abs=1e-3)


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


def test_the_low_quality_latent_is_noised_as_in_the_reference() -> None:
    golden = {key.removeprefix("cond."): value for key, value in tensors("dit/sampler").items() if key.startswith("cond.")}
    for t, expected in zip(golden["t"].tolist(), golden["lq_noised"], strict=True):
        torch.testing.assert_close(noise_low_quality(golden["lq"], golden["noise"], t), expected, atol=1e-6, rtol=1e-6)
    conditioned = condition(noise_low_quality(golden["lq"], golden["noise"], 100.0))
    torch.testing.assert_close(conditioned, golden["condition_at_t100"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("scale", "rescale"), [(1.0, 0.0), (2.0, 0.0), (6.5, 0.0), (6.5, 0.7)])
def test_guidance_is_that_of_the_reference(scale: float, rescale: float) -> None:
    golden = tensors("dit/sampler")
    guided = guide(golden["cfg.pos"], golden["cfg.neg"], scale, rescale)
    torch.testing.assert_close(guided, golden[f"cfg.scale{scale}.rescale{rescale}"], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(("scale", "partial", "asked"), [(2.0, 1.0, 4), (2.0, 0.5, 2), (2.0, 0.2, 0), (1.0, 1.0, 0)])
def test_the_negative_text_is_used_in_guided_steps_only(scale: float, partial: float, asked: int) -> None:
    times: list[float] = []

    def negative_at(x: torch.Tensor, t: float) -> torch.Tensor:
        times.append(t)
        return torch.zeros_like(x)

    guidance = Guidance(negative_at=negative_at, scale=scale, partial=partial)
    sample(lambda x, t: x, torch.randn(2, 3, 4), steps=4, guidance=guidance)
    assert times == trailing_timesteps(4)[:asked]


@pytest.mark.parametrize(("options", "field"), [({"rescale": 1.5}, "cfg_rescale"), ({"partial": 0.0}, "cfg_partial")])
def test_guidance_out_of_range_is_refused(options: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidOption) as error:
        Guidance(negative_at=lambda x, t: x, scale=2.0, **options)
    assert error.value.field == field


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


def test_a_latent_has_the_same_noise_in_every_window() -> None:
    both = [noise_of(NOISES[0], 666, indices, (4, 6, 3)) for indices in ((0, 4, 8), (8, 12))]
    assert both[0].shape == (3, 4, 6, 3)
    assert both[0][2].equal(both[1][0])
    assert both[0][0].equal(latent_noise(666, 0, (4, 6, 3)))
    assert not both[0][0].equal(both[0][1])


def test_one_draw_can_serve_all_latents() -> None:
    noise = noise_of(NOISES[1], 666, (3, 40), (4, 6, 3))
    assert noise[0].equal(noise[1])
    assert not noise[0].equal(noise_of(NOISES[1], 667, (3,), (4, 6, 3))[0])


def test_noise_is_standard_normal() -> None:
    noise = latent_noise(1, 2, (64, 64, 16))
    assert abs(noise.mean().item()) < 4 / math.sqrt(noise.numel())
    assert noise.std().item() == pytest.approx(1, abs=0.02)
