"""The few things that only NVIDIA's management library tells. It comes with the driver; where it is missing, nothing is known."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARY = "libnvidia-ml.so.1"
_LINKS = 18
"""More than any GPU so far has."""
_TEXT_BYTES = 96
_ON = 1


def driver_version(library: str = LIBRARY) -> str:
    """Such as 580.159.04; empty where nothing is known."""
    with _opened(library) as nvml:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        known = nvml is not None and nvml.nvmlSystemGetDriverVersion(text, _TEXT_BYTES) == 0
        return text.value.decode(errors="replace") if known else ""


def driver_cuda(library: str = LIBRARY) -> int:
    """Newest CUDA that the driver supports, 12040 for 12.4; 0 where nothing is known."""
    with _opened(library) as nvml:
        version = ctypes.c_int(0)
        known = nvml is not None and nvml.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version)) == 0
        return version.value if known else 0


def nvlinks(uuid: str, library: str = LIBRARY) -> int | None:
    """NVLink connections of a GPU that are up; None where nothing is known."""
    with _opened(library) as nvml:
        if nvml is None:
            return None
        handle, state = ctypes.c_void_p(), ctypes.c_int(0)
        if nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0:
            return None
        count = 0
        for link in range(_LINKS):
            answered = nvml.nvmlDeviceGetNvLinkState(handle, link, ctypes.byref(state)) == 0
            count += answered and state.value == _ON
        return count


@contextmanager
def _opened(library: str) -> Iterator[ctypes.CDLL | None]:
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        nvml = None
    if nvml is None or nvml.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()
