import torch

from services.inference.gpu.model.colour.spaces import hsv_to_rgb, lab_to_rgb, rgb_to_hsv, rgb_to_lab
from tests.unit.inference.gpu.goldens import tensors


def test_lab_and_hsv_have_the_reference_values() -> None:
    golden = tensors("pipeline/colour")
    rgb = (golden["small.style_soft"] + 1) / 2
    torch.testing.assert_close(rgb_to_lab(rgb), golden["small.style_soft_lab"], atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(rgb_to_hsv(rgb), golden["small.style_soft_hsv"], atol=1e-5, rtol=0)


def test_known_colours() -> None:
    white_red_black = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])[..., None, None]
    lab, hsv = rgb_to_lab(white_red_black)[..., 0, 0], rgb_to_hsv(white_red_black)[..., 0, 0]
    torch.testing.assert_close(lab, torch.tensor([[100.0, 0, 0], [53.24, 80.09, 67.20], [0, 0, 0]]), atol=0.02, rtol=0)
    assert hsv.tolist() == [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]


def test_there_and_back_is_the_same_picture() -> None:
    torch.manual_seed(0)
    rgb = torch.rand(2, 3, 24, 32)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=2e-5, rtol=0)
    torch.testing.assert_close(hsv_to_rgb(rgb_to_hsv(rgb)), rgb, atol=2e-6, rtol=0)


def test_black_and_white_pictures_give_no_nan() -> None:
    for shade in (0.0, 1.0):
        flat = torch.full((1, 3, 4, 4), shade)
        torch.testing.assert_close(lab_to_rgb(rgb_to_lab(flat)), flat, atol=2e-5, rtol=0)
        assert hsv_to_rgb(rgb_to_hsv(flat)).equal(flat)
