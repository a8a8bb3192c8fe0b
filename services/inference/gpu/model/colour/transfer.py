"""Every colour mode by its name, for the frames of a shot in their order."""

from collections.abc import Callable

import torch
from torch import Tensor

from services.inference.gpu.model.colour.running import RunningHsv
from services.inference.gpu.model.colour.statistics import blend_adaptive, transfer_adain, transfer_lab
from services.inference.gpu.model.colour.wavelet import transfer_wavelet

Transfer = Callable[[Tensor, Tensor], Tensor]
"""One restored frame and its source, (1, 3, H, W) each, to the frame with the source's colours."""


class ColourTransfer:
    """Colours of the source for restored frames.

    No result depends on how many frames come in a call. All modes but two look at one frame only; hsv and wavelet_adaptive also
    at the saturations of those before it in the shot. Frame by frame also bounds memory: sorting a frame's pixels needs it a few
    times over.
    """

    def __init__(self, mode: str) -> None:
        """``mode``: one of TRANSFERS."""
        self._transfer = TRANSFERS[mode]()

    def __call__(self, restored: Tensor, source: Tensor) -> Tensor:
        """Take the next frames.

        Args:
            restored: (T, 3, H, W) in [-1, 1], overshoot allowed.
            source: the same shape, the resized input.

        Returns:
            (T, 3, H, W) fp32.
        """
        frames = [self._transfer(restored[i : i + 1], source[i : i + 1]) for i in range(len(restored))]
        return torch.cat(frames) if frames else restored


def _adaptive() -> Transfer:
    by_hue = RunningHsv()
    return lambda restored, source: blend_adaptive(restored, source, by_hue(restored, source))


TRANSFERS: dict[str, Callable[[], Transfer]] = {
    "wavelet": lambda: transfer_wavelet,
    "adain": lambda: transfer_adain,
    "lab": lambda: transfer_lab,
    "hsv": RunningHsv,
    "wavelet_adaptive": _adaptive,
}
"""All but "none", which leaves frames as they are; each makes what one shot needs."""
