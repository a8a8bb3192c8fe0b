"""A process each: the library is loaded once, by its name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.nvml import NO_DRIVER, build

_SCRAPE = """
import time
from prometheus_client import CollectorRegistry, generate_latest
from services.inference.gpu_metrics import GpuMetrics
registry = CollectorRegistry()
registry.register(GpuMetrics("7b"))
deadline = time.monotonic() + 10
while True:
    text = generate_latest(registry).decode()
    if "xid_errors_total{" in text or "seedvr2_gpu_info" not in text or time.monotonic() > deadline:
        break
    time.sleep(0.01)
print(text)
"""

Samples = dict[tuple[str, str], float]


def scrape(libraries: Path) -> Samples:
    """Values by name and by the labels of their own, sorted; every sample must name the GPU and the pool."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run([sys.executable, "-c", _SCRAPE], env=environment, check=True, capture_output=True, text=True)
    found: Samples = {}
    for family in text_string_to_metric_families(done.stdout):
        for sample in family.samples:
            own = dict(sample.labels)
            assert (own.pop("gpu"), own.pop("pool")) == ("GPU-a", "7b")
            found[sample.name.removeprefix("seedvr2_gpu_"), ",".join(own[name] for name in sorted(own))] = sample.value
    return found


def test_a_gpu_tells_what_it_does_in_base_units(tmp_path: Path):
    build(tmp_path)
    assert scrape(tmp_path) == {
        ("info", "580.159.04,NVIDIA H100 80GB HBM3"): 1,
        ("xid_errors_total", "79"): 1,
        ("utilization_ratio", ""): 0.87,
        ("memory_utilization_ratio", ""): 0.4,
        ("memory_used_bytes", ""): 506724352,
        ("memory_total_bytes", ""): 85520809984,
        ("power_watts", ""): pytest.approx(121.607),
        ("power_limit_watts", ""): 700,
        ("energy_joules_total", ""): pytest.approx(8113.14),
        ("temperature_celsius", ""): 38,
        ("clock_hertz", "graphics"): 1.98e9,
        ("clock_hertz", "sm"): 1.98e9,
        ("clock_hertz", "memory"): 2.619e9,
        ("throttled", "power_cap"): 1,
        ("throttled", "hardware"): 0,
        ("throttled", "software_thermal"): 0,
        ("throttled", "hardware_thermal"): 0,
        ("throttled", "power_brake"): 0,
        ("ecc_errors_total", "corrected"): 3,
        ("ecc_errors_total", "uncorrected"): 0,
        ("pcie_bytes_per_second", "sent"): 1295 * 1024,
        ("pcie_bytes_per_second", "received"): 390 * 1024,
        ("nvlink_bytes_total", "sent"): 7 * 1024,
        ("nvlink_bytes_total", "received"): 9 * 1024,
    }


def test_without_the_library_or_without_a_driver_there_is_nothing(tmp_path: Path):
    assert scrape(tmp_path) == {}
    build(tmp_path, NO_DRIVER)
    assert scrape(tmp_path) == {}
