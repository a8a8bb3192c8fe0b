"""NVIDIA's library as it is missing here, and one in its place that answers as it would."""

from pathlib import Path

import pytest

from services.inference.gpu import nvml
from tests.fakes.nvml import NO_DRIVER, SUCCESS, build


@pytest.fixture
def library(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return str(build(tmp_path, getattr(request, "param", SUCCESS)))


def test_the_driver_and_links_that_are_up_are_told(library: str):
    assert nvml.driver_version(library) == "580.159.04"
    assert nvml.driver_cuda(library) == 13000
    assert nvml.nvlinks("GPU-a", library) == 3
    assert nvml.nvlinks("GPU-b", library) is None


@pytest.mark.parametrize("library", [NO_DRIVER], indirect=True)
def test_a_library_without_a_driver_tells_nothing(library: str):
    assert nvml.driver_version(library) == ""
    assert nvml.driver_cuda(library) == 0
    assert nvml.nvlinks("GPU-a", library) is None


def test_where_there_is_no_library_nothing_is_known():
    assert nvml.driver_version("libnothing-at-all.so") == ""
    assert nvml.nvlinks("GPU-a", "libnothing-at-all.so") is None
