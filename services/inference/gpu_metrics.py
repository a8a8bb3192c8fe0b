"""What NVIDIA's management library tells of this pod's GPUs, asked whenever metrics are scraped. Nothing where there is none."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pynvml
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_log = logging.getLogger(__name__)
_XID_WAIT_MS = 1000
_ALL_LINKS = 0xFFFFFFFF

Sample = tuple[tuple[str, ...], float]
"""Values of a metric's own labels, and the value."""

Family = GaugeMetricFamily | CounterMetricFamily
Read = Callable[[Any], list[Sample]]
"""Asks about one GPU, by its handle; raises NVMLError where that GPU doesn't tell."""

_LABELS = ("gpu", "pool")
"""Of every metric: the GPU's uuid, and the worker's pool."""

_CLOCKS = (("graphics", pynvml.NVML_CLOCK_GRAPHICS), ("sm", pynvml.NVML_CLOCK_SM), ("memory", pynvml.NVML_CLOCK_MEM))
_THROTTLED = (
    ("power_cap", pynvml.nvmlClocksEventReasonSwPowerCap),
    ("hardware", pynvml.nvmlClocksEventReasonHwSlowdown),
    ("software_thermal", pynvml.nvmlClocksEventReasonSwThermalSlowdown),
    ("hardware_thermal", pynvml.nvmlClocksEventReasonHwThermalSlowdown),
    ("power_brake", pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown),
)
_ECC = (("corrected", pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED), ("uncorrected", pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED))
_PCIE = (("sent", pynvml.NVML_PCIE_UTIL_TX_BYTES), ("received", pynvml.NVML_PCIE_UTIL_RX_BYTES))
_NVLINK = (("sent", pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX), ("received", pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX))


def _one(ask: Callable[[Any], float]) -> Read:
    return lambda gpu: [((), ask(gpu))]


def _each(choices: Sequence[tuple[str, int]], ask: Callable[[Any, int], float]) -> Read:
    return lambda gpu: [((name,), ask(gpu, number)) for name, number in choices]


def _throttled(gpu: Any) -> list[Sample]:
    reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    return [((name,), float(bool(reasons & bit))) for name, bit in _THROTTLED]


def _nvlink_bytes(gpu: Any) -> list[Sample]:
    values = pynvml.nvmlDeviceGetFieldValues(gpu, [(number, _ALL_LINKS) for _, number in _NVLINK])
    told = zip(_NVLINK, values, strict=True)
    # The library counts in KiB.
    return [((name,), value.value.ullVal * 1024) for (name, _), value in told if value.nvmlReturn == pynvml.NVML_SUCCESS]


Described = tuple[type[Family], str, str, Read, tuple[str, ...]]
"""Kind, name without prefix, meaning, how it is read, labels of its own."""


def _gauge(name: str, text: str, read: Read, *labels: str) -> Described:
    return GaugeMetricFamily, name, text, read, labels


def _counter(name: str, text: str, read: Read, *labels: str) -> Described:
    return CounterMetricFamily, name, text, read, labels


_METRICS = (
    _gauge("utilization_ratio", "Part of the last moments in which the GPU computed, 0 to 1.",
           _one(lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)),
    _gauge("memory_utilization_ratio", "Part of the last moments in which its memory was read or written, 0 to 1.",
           _one(lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).memory / 100)),
    _gauge("memory_used_bytes", "Memory in use by all processes, the driver's included.",
           _one(lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used)),
    _gauge("memory_total_bytes", "Memory that it has.", _one(lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).total)),
    _gauge("power_watts", "Power that it draws.", _one(lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3)),
    _gauge("power_limit_watts", "Power that it may draw.", _one(lambda gpu: pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3)),
    _counter("energy_joules", "Energy drawn since the driver was loaded.",
             _one(lambda gpu: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3)),
    _gauge("temperature_celsius", "Temperature of the chip.",
           _one(lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU))),
    _gauge("clock_hertz", "Clock rate: graphics, sm, memory.",
           _each(_CLOCKS, lambda gpu, clock: pynvml.nvmlDeviceGetClockInfo(gpu, clock) * 1e6), "clock"),
    _gauge("throttled", "1 while clocks are held down for a reason: power_cap, hardware, software_thermal, hardware_thermal, "
           "power_brake.", _throttled, "reason"),
    _counter("ecc_errors", "Memory errors over the GPU's life: corrected, uncorrected.",
             _each(_ECC, lambda gpu, kind: pynvml.nvmlDeviceGetTotalEccErrors(gpu, kind, pynvml.NVML_AGGREGATE_ECC)), "kind"),
    _gauge("pcie_bytes_per_second", "Bytes over PCIe in the last 20 ms: sent, received, as the GPU sees it.",
           _each(_PCIE, lambda gpu, way: pynvml.nvmlDeviceGetPcieThroughput(gpu, way) * 1024), "direction"),
    _counter("pcie_replays", "Transfers over PCIe that had to be sent again.",
             _one(lambda gpu: pynvml.nvmlDeviceGetPcieReplayCounter(gpu))),
    _counter("nvlink_bytes", "Bytes over all NVLink connections: sent, received.", _nvlink_bytes, "direction"),
)  # fmt: skip

_INFO = ("info", "Always 1; the labels tell what the GPU is.", ("name", "driver"))
_XIDS = ("xid_errors", "Errors that the driver reported since this worker began, by their number.", ("xid",))


class GpuMetrics(Collector):
    """The GPUs that this process can see. What one doesn't tell is left out for it."""

    def __init__(self, pool: str) -> None:
        """``pool``: of this worker."""
        self._pool = pool
        self._gpus = _gpus()
        self._xids: Counter[tuple[str, int]] = Counter()
        if self._gpus:
            threading.Thread(target=self._watch_xids, name="xids", daemon=True).start()

    def describe(self) -> Iterator[Metric]:
        """Every metric without values, so that names are known where there is no GPU."""
        yield _family(GaugeMetricFamily, *_INFO)
        yield _family(CounterMetricFamily, *_XIDS)
        for kind, name, text, _, labels in _METRICS:
            yield _family(kind, name, text, labels)

    def collect(self) -> Iterator[Metric]:
        """What the GPUs tell now."""
        if not self._gpus:
            return
        yield self._info()
        yield self._errors()
        for kind, name, text, read, labels in _METRICS:
            metric = _family(kind, name, text, labels)
            for uuid, gpu in self._gpus.items():
                for values, value in _told(read, gpu):
                    metric.add_metric((uuid, self._pool, *values), value)
            if metric.samples:
                yield metric

    def _info(self) -> Metric:
        metric = _family(GaugeMetricFamily, *_INFO)
        for uuid, gpu in self._gpus.items():
            metric.add_metric((uuid, self._pool, pynvml.nvmlDeviceGetName(gpu), pynvml.nvmlSystemGetDriverVersion()), 1)
        return metric

    def _errors(self) -> Metric:
        metric = _family(CounterMetricFamily, *_XIDS)
        for (uuid, xid), count in sorted(self._xids.items()):
            metric.add_metric((uuid, self._pool, str(xid)), count)
        return metric

    def _watch_xids(self) -> None:
        """Count what the driver reports, until this process ends."""
        events = pynvml.nvmlEventSetCreate()
        for gpu in self._gpus.values():
            # MIG instances and some virtual GPUs report none.
            with suppress(pynvml.NVMLError):
                pynvml.nvmlDeviceRegisterEvents(gpu, pynvml.nvmlEventTypeXidCriticalError, events)
        while True:
            try:
                event = pynvml.nvmlEventSetWait_v2(events, _XID_WAIT_MS)
            except pynvml.NVMLError_Timeout:
                continue
            except pynvml.NVMLError as error:
                _log.warning("errors of GPUs are not counted any more", extra={"detail": str(error)})
                return
            uuid = pynvml.nvmlDeviceGetUUID(event.device)
            self._xids[uuid, int(event.eventData)] += 1
            _log.error("the driver reports an error of a GPU", extra={"gpu": uuid, "xid": int(event.eventData)})


def _gpus() -> dict[str, Any]:
    """Handles by uuid; none without the library or a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    return {pynvml.nvmlDeviceGetUUID(handle): handle for handle in handles}


def _family(kind: type[Family], name: str, text: str, labels: tuple[str, ...]) -> Family:
    return kind(f"seedvr2_gpu_{name}", text, labels=(*_LABELS, *labels))


def _told(read: Read, gpu: Any) -> list[Sample]:
    try:
        return read(gpu)
    except pynvml.NVMLError:
        return []
