"""``python -m scripts.dashboards``: write the chart's Grafana dashboards, one JSON file each.

A dashboard is rows of panels, a panel is queries with a unit. Rates are taken over Grafana's own interval. Panels that show what
normally doesn't happen are marked: they may be empty, all others must show something as soon as a job has run.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "helm" / "seedvr2" / "files" / "dashboards"
_WIDTH, _HEIGHT, _PER_ROW = 24, 8, 3
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}

BY_POOL = "* on (namespace, pod, instance) group_left (pool) seedvr2_worker_info"
"""Gives what a worker says of itself the pool that it belongs to."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A graph, or a table."""

    title: str
    """What it shows."""

    queries: tuple[tuple[str, str], ...]
    """PromQL and how its series are called."""

    unit: str = "short"
    """Grafana's name of the unit."""

    text: str = ""
    """How to read it."""

    table: bool = False
    """Labels of the series that there are, instead of a graph."""

    rare: bool = False
    """Empty while nothing goes wrong."""


def panel(title: str, unit: str, *queries: tuple[str, str], text: str = "", rare: bool = False) -> Panel:
    """A graph."""
    return Panel(title=title, unit=unit, queries=queries, text=text, rare=rare)


def table(title: str, query: str) -> Panel:
    """What there is."""
    return Panel(title=title, queries=((query, ""),), table=True)


def rate(metric: str) -> str:
    """A counter's growth a second."""
    return f"rate({metric}[$__rate_interval])"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """Of a histogram's observations."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(histogram + '_bucket')}))"


FLEET = (
    panel("Workers", "short", ("max by (state) (seedvr2_workers)", "{{state}}"), text="As the gateways see them."),
    panel("Workers that take spans", "short", (f"sum by (pool) (seedvr2_ready {BY_POOL})", "{{pool}}")),
    panel("Spans in flight", "short", (f"sum by (pool) (seedvr2_spans_in_flight {BY_POOL})", "{{pool}}"),
          ("sum(seedvr2_spans_dispatched)", "dispatched by gateways")),
    panel("Restored megapixels a second", "short",
          (f"sum by (pool) ({rate('seedvr2_pixels_restored_total')} {BY_POOL}) / 1e6", "{{pool}}")),
    panel("Restored frames a second", "short",
          (f"sum by (pool) ({rate('seedvr2_frames_restored_total')} {BY_POOL})", "{{pool}}")),
    panel("Queued output megapixels", "short", ("sum by (pool) (seedvr2_queued_megapixels)", "{{pool}}"),
          text="Work without a worker: what pools are scaled by.", rare=True),
    panel("Spans by outcome", "ops", (f"sum by (outcome) ({rate('seedvr2_spans_total')})", "{{outcome}}")),
    panel("Spans sent again", "ops", (f"sum by (reason) ({rate('seedvr2_span_retries_total')})", "{{reason}}"), rare=True),
    panel("Time of a span", "s", (quantile(0.5, "seedvr2_span_duration_seconds"), "median"),
          (quantile(0.95, "seedvr2_span_duration_seconds"), "95 %")),
    panel("Model load", "s", ("max by (pod, instance) (seedvr2_model_load_seconds)", "{{pod}} {{instance}}")),
    panel("Rank starts", "short", ("sum by (pod, instance) (seedvr2_rank_starts_total)", "{{pod}} {{instance}}"),
          text="More than ranks: some died."),
    panel("Memory of ranks", "bytes",
          ("max by (pod, instance, rank) (seedvr2_rank_memory_bytes)", "{{pod}} {{instance}} {{rank}}")),
    table("Workers and their fingerprints", "seedvr2_worker_info"),
    table("Models", "seedvr2_model_info"),
    table("Gateways", "seedvr2_gateway_info"),
)  # fmt: skip

JOBS = (
    panel("Jobs that have not ended", "short", ("max by (state) (seedvr2_jobs)", "{{state}}")),
    panel("Oldest job", "s", ("max(seedvr2_oldest_job_age_seconds)", "age")),
    panel("Jobs that ended", "ops", (f"sum by (state) ({rate('seedvr2_jobs_ended_total')})", "{{state}}")),
    panel("Time of a job", "s", (quantile(0.5, "seedvr2_job_duration_seconds"), "median"),
          (quantile(0.95, "seedvr2_job_duration_seconds"), "95 %")),
    panel("Waiting for a worker", "s", (quantile(0.5, "seedvr2_span_wait_seconds"), "median"),
          (quantile(0.95, "seedvr2_span_wait_seconds"), "95 %")),
    panel("Joining", "s", (quantile(0.95, "seedvr2_join_duration_seconds"), "95 %")),
    panel("Where the time goes", "short", (f"sum by (stage) ({rate('seedvr2_stage_duration_seconds_sum')})", "{{stage}}"),
          text="Workers that are busy with a stage. Decoding and encoding go on beside the others."),
    panel("Time of a stage", "s", (quantile(0.95, "seedvr2_stage_duration_seconds", "stage"), "{{stage}}")),
    panel("Segments", "ops", (f"sum({rate('seedvr2_segments_stored_total')})", "stored"),
          (f"sum({rate('seedvr2_segments_reused_total')})", "found in the store")),
    panel("Calls", "reqps", (f"sum by (code) ({rate('seedvr2_requests_total')})", "{{code}}")),
    panel("Bytes", "Bps", (f"sum({rate('seedvr2_upload_bytes_total')})", "uploads"),
          (f"sum({rate('seedvr2_download_bytes_total')})", "downloads"),
          (f"sum({rate('seedvr2_packet_bytes_total')})", "packets to workers"),
          (f"sum({rate('seedvr2_segment_bytes_total')})", "segments from workers")),
    panel("Jobs taken up again", "ops", (f"sum({rate('seedvr2_jobs_resumed_total')})", "resumed"), rare=True),
    panel("Store failures", "ops", (f"sum by (kind) ({rate('seedvr2_store_failures_total')})", "{{kind}}"), rare=True),
    panel("The page's requests", "reqps",
          (f"sum by (route, status) ({rate('seedvr2_ui_requests_total')})", "{{route}} {{status}}"), rare=True),
    panel("Frames that could not be decoded", "short", (f"sum({rate('seedvr2_frames_concealed_total')})", "concealed")),
)  # fmt: skip

_GPU = "{{pool}} {{gpu}}"
GPU = (
    panel("Utilisation", "percentunit", ("seedvr2_gpu_utilization_ratio", _GPU)),
    panel("Memory", "bytes", ("seedvr2_gpu_memory_used_bytes", f"{_GPU} used"),
          ("seedvr2_gpu_memory_total_bytes", f"{_GPU} total")),
    panel("Memory traffic", "percentunit", ("seedvr2_gpu_memory_utilization_ratio", _GPU)),
    panel("Power", "watt", ("seedvr2_gpu_power_watts", _GPU), ("seedvr2_gpu_power_limit_watts", f"{_GPU} limit")),
    panel("Energy of a megapixel", "joule",
          (f"sum by (pool) ({rate('seedvr2_gpu_energy_joules_total')}) / "
           f"(sum by (pool) ({rate('seedvr2_pixels_restored_total')} {BY_POOL}) / 1e6 > 0)", "{{pool}}"), rare=True),
    panel("Temperature", "celsius", ("seedvr2_gpu_temperature_celsius", _GPU)),
    panel("Clocks", "hertz", ("seedvr2_gpu_clock_hertz", f"{_GPU} {{{{clock}}}}")),
    panel("Held down by", "short", ("seedvr2_gpu_throttled", f"{_GPU} {{{{reason}}}}")),
    panel("Memory errors", "short", ("seedvr2_gpu_ecc_errors_total", f"{_GPU} {{{{kind}}}}")),
    panel("Errors that the driver reports", "short", ("seedvr2_gpu_xid_errors_total", f"{_GPU} Xid {{{{xid}}}}"), rare=True),
    panel("PCIe", "Bps", ("seedvr2_gpu_pcie_bytes_per_second", f"{_GPU} {{{{direction}}}}")),
    panel("NVLink", "Bps", (rate("seedvr2_gpu_nvlink_bytes_total"), f"{_GPU} {{{{direction}}}}")),
    panel("Peak memory of a span", "bytes", (quantile(0.95, "seedvr2_span_peak_memory_bytes"), "95 %")),
    panel("Memory left for a rank", "bytes", ("min by (pod, instance) (seedvr2_available_memory_bytes)", "{{pod}} {{instance}}")),
    panel("Out of memory", "ops", (f"sum by (outcome) ({rate('seedvr2_out_of_memory_total')})", "{{outcome}}"),
          (f"sum({rate('seedvr2_out_of_memory_avoided_total')})", "avoided"), rare=True),
    table("GPUs", "seedvr2_gpu_info"),
    table("Devices of ranks", "seedvr2_device_info"),
    panel("Checks of devices", "short",
          ("min by (pod, instance, check) (seedvr2_device_check_passed)", "{{instance}} {{check}}")),
)  # fmt: skip

DASHBOARDS: dict[str, tuple[str, tuple[Panel, ...]]] = {
    "fleet": ("SeedVR2 / Fleet", FLEET),
    "jobs": ("SeedVR2 / Jobs", JOBS),
    "gpu": ("SeedVR2 / GPUs", GPU),
}
"""Title and panels by the file's name."""


def main() -> None:
    """Write them."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (DIRECTORY / f"{name}.json").write_text(text_of(name))


def text_of(name: str) -> str:
    """A dashboard's file."""
    title, panels = DASHBOARDS[name]
    return json.dumps(_dashboard(name, title, panels), indent=1, ensure_ascii=False) + "\n"


def _dashboard(name: str, title: str, panels: tuple[Panel, ...]) -> Json:
    return {
        "uid": f"seedvr2-{name}",
        "title": title,
        "tags": ["seedvr2"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(number, each) for number, each in enumerate(panels)],
    }


def _panel(number: int, each: Panel) -> Json:
    width = _WIDTH // _PER_ROW
    place = {"x": number % _PER_ROW * width, "y": number // _PER_ROW * _HEIGHT, "w": width, "h": _HEIGHT}
    shape = _table_shape() if each.table else _graph_shape(each.unit)
    queries = [_target(letter, *query, table=each.table) for letter, query in zip("ABCDEF", each.queries, strict=False)]
    return {
        "id": number + 1,
        "title": each.title,
        "description": each.text,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": queries,
        **shape,
    }


def _graph_shape(unit: str) -> Json:
    return {
        "type": "timeseries",
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
    }


def _table_shape() -> Json:
    hidden = dict.fromkeys(("Time", "Value", "__name__", "endpoint", "job", "container"), True)
    organise = {"id": "organize", "options": {"excludeByName": hidden}}
    return {"type": "table", "fieldConfig": {"defaults": {}, "overrides": []}, "transformations": [organise]}


def _target(letter: str, query: str, legend: str, *, table: bool) -> Json:
    shape: Json = {"format": "table", "instant": True} if table else {"legendFormat": legend}
    return {"refId": letter, "datasource": _SOURCE, "expr": query, **shape}


if __name__ == "__main__":
    main()
