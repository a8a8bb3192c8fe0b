"""Where Triton kernels can run: a GPU, or Triton's interpreter on the CPU (TRITON_INTERPRET=1)."""

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton isn't installed")

if torch.cuda.is_available():
    DEVICE = torch.device("cuda")
elif os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = torch.device("cpu")
else:
    pytest.skip("Triton needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

# The interpreter cuts bf16 where a GPU rounds.
TYPES = pytest.mark.parametrize("dtype", [torch.float32, *([torch.bfloat16] if DEVICE.type == "cuda" else [])], ids=str)


def assert_close(mine: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to one rounding of the compared type."""
    assert mine.shape == expected.shape
    error = (mine.float() - expected.float()).norm() / expected.float().norm()
    assert error < (1e-5 if mine.dtype == torch.float32 else 5e-3)
    largest = (mine.float() - expected.float()).abs().max() / expected.float().abs().max()
    assert largest < (1e-4 if mine.dtype == torch.float32 else 2e-2)
