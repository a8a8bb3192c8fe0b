"""NVIDIA's management library, in a file of its own: what stands in for a driver and a GPU."""

import shutil
import subprocess
from pathlib import Path

NAME = "libnvidia-ml.so.1"
SUCCESS, NO_DRIVER = 0, 9


def build(directory: Path, status: int = SUCCESS) -> Path:
    """Make the library in ``directory``; ``status`` is what its start says. Raises FileNotFoundError without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler to make a library with; install gcc")
    source, target = Path(__file__).parent / "library.c", directory / NAME
    subprocess.run([compiler, "-shared", "-fPIC", f"-DSTATUS={status}", "-o", target, source], check=True)
    return target
