"""Hold all but a little of a GPU's memory until the input ends: ``python -m bench.hog GPU MIB``."""

import sys

import torch

_STEP_BYTES = 16 << 20


def main() -> None:
    """Fill the GPU, say so, wait."""
    gpu, left_bytes = int(sys.argv[1]), int(sys.argv[2]) << 20
    held = [torch.empty(_STEP_BYTES, dtype=torch.uint8, device=f"cuda:{gpu}")]
    while (free_bytes := torch.cuda.mem_get_info(gpu)[0]) > left_bytes + _STEP_BYTES:
        held.append(torch.empty(free_bytes - left_bytes, dtype=torch.uint8, device=f"cuda:{gpu}"))
    print("full", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
