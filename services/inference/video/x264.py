"""How x264 is told to give the same bytes for the same frames."""

from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


@cache
def repeatable_options(cpu_info: Path = _CPU_INFO) -> dict[str, str]:
    """Encoder options that make results repeatable on this machine.

    With AVX-512, what x264's macroblock tree gives depends on what lay in memory before: the same frames come out as different
    bytes within one process. With AVX2, and so on most processors, they don't.
    """
    return {"x264-params": "asm=avx2"} if "avx512f" in _cpu_flags(cpu_info) else {}


def _cpu_flags(cpu_info: Path) -> set[str]:
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    return set(next((line for line in lines if line.startswith("flags")), "").split())
