"""NVIDIA's library as it is missing here, and one in its place that answers as it would."""

import shutil
import subprocess
from pathlib import Path

import pytest

from services.inference.gpu import nvml

_ANSWERS = r"""
#include <string.h>
int nvmlInit_v2(void) { return STATUS; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.159.04", length); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { return strcmp(uuid, "GPU-a") ? 6 : 0; }
int nvmlDeviceGetNvLinkState(void *handle, unsigned link, int *state) { *state = link != 2; return link < 4 ? 0 : 2; }
"""


@pytest.fixture
def library(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make a library with")
    source, target = tmp_path / "nvml.c", tmp_path / "nvml.so"
    source.write_text(_ANSWERS)
    subprocess.run([compiler, "-shared", "-fPIC", f"-DSTATUS={getattr(request, 'param', 0)}", "-o", target, source], check=True)
    return str(target)


def test_the_driver_and_links_that_are_up_are_told(library: str):
    assert nvml.driver_version(library) == "580.159.04"
    assert nvml.driver_cuda(library) == 13000
    assert nvml.nvlinks("GPU-a", library) == 3
    assert nvml.nvlinks("GPU-b", library) is None


@pytest.mark.parametrize("library", [9], indirect=True)
def test_a_library_without_a_driver_tells_nothing(library: str):
    assert nvml.driver_version(library) == ""
    assert nvml.driver_cuda(library) == 0
    assert nvml.nvlinks("GPU-a", library) is None


def test_where_there_is_no_library_nothing_is_known():
    assert nvml.driver_version("libnothing-at-all.so") == ""
    assert nvml.nvlinks("GPU-a", "libnothing-at-all.so") is None
