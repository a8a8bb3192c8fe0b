"""How much memory a device has left for this process, what the process holds of it already included."""

from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device, neighbours: int = 0) -> int:
    """Memory that this process could hold on a device if it gave nothing back; on a CPU, of the machine or its container.

    There ``neighbours`` are as many other processes that want as much at the same time: each counts on its share only.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return min(_left_on_host(), _left_in_group(_CGROUP)) // (neighbours + 1) + _resident()


def _left_on_host() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _left_in_group(group: Path) -> int:
    """What the limit of a control group (version 2) leaves; files that are cached make room where it is needed."""
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        cached = next(line for line in (group / "memory.stat").read_text().splitlines() if line.startswith("inactive_file "))
    except (OSError, StopIteration):
        return 1 << 62
    return 1 << 62 if limit == "max" else max(0, int(limit) - used + int(cached.split()[1]))


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
