import torch

from services.inference.gpu.model.colour.running import RunningHsv
from services.inference.gpu.model.colour.spaces import rgb_to_hsv
from services.inference.gpu.model.colour.statistics import transfer_hsv, unit
from tests.unit.inference.gpu.goldens import tensors


def test_one_frame_comes_out_as_by_ranks() -> None:
    golden = tensors("pipeline/colour")
    restored, source = golden["large.content_soft"], golden["large.style_soft"]
    # Saturations are told apart by 1/4095, ranks of them are exact.
    error = (RunningHsv()(restored, source) - transfer_hsv(restored, source)).abs().flatten()
    assert error.quantile(0.99) < 1e-2
    assert error.mean() < 1e-3


def test_frames_before_steady_what_a_frame_becomes() -> None:
    torch.manual_seed(0)
    still = torch.rand(1, 3, 30, 40).repeat(8, 1, 1, 1) * 1.2 - 0.6
    source = still + 0.1 * torch.randn_like(still)

    def flicker(last_frames: int) -> float:
        transfer = RunningHsv(last_frames)
        frames = torch.cat([transfer(still[i : i + 1], source[i : i + 1]) for i in range(8)])
        return float(frames[4:].diff(dim=0).abs().mean())

    assert flicker(4) < 0.5 * flicker(1)


def test_only_the_last_frames_count() -> None:
    torch.manual_seed(0)
    restored, source = torch.rand(2, 4, 3, 24, 32) * 1.2 - 0.6
    long, short = RunningHsv(2), RunningHsv(2)
    results = [long(restored[i : i + 1], source[i : i + 1]) for i in range(4)]
    assert torch.equal([short(restored[i : i + 1], source[i : i + 1]) for i in (2, 3)][-1], results[-1])


def test_hue_and_brightness_stay() -> None:
    torch.manual_seed(0)
    restored, source = torch.rand(2, 1, 3, 40, 40) * 1.2 - 0.6
    before, after = rgb_to_hsv(unit(restored)), rgb_to_hsv(unit(RunningHsv()(restored, source)))
    coloured = after[:, 1] > 0.05
    torch.testing.assert_close(after[:, 2], before[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(after[:, 0][coloured], before[:, 0][coloured], atol=1e-3, rtol=0)


def test_a_picture_without_colour_stays_without() -> None:
    grey = (torch.rand(1, 1, 16, 16) * 2 - 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(RunningHsv()(grey, torch.full((1, 3, 16, 16), -1.0)), grey, atol=1e-6, rtol=0)
