"""Write the reference pages of docs/ from the code: ``python -m scripts.reference``. A test compares them.

Pages: docs/openapi.json, docs/settings.md, docs/errors.md, docs/metrics.md, docs/memory.md; and what the chart says of its
values, helm/seedvr2.
"""

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from scripts import chart
from scripts.memory_page import memory_page
from services.common.errors import all_errors
from services.common.metrics import GatewayMetrics, InferenceMetrics, RankHostMetrics, UiMetrics
from services.common.otlp import PREFIX as TRACING_PREFIX
from services.common.otlp import TracingSettings
from services.common.rpc.status import code_of
from services.gateway.buckets.settings import PREFIX as BUCKETS_PREFIX
from services.gateway.buckets.settings import BucketSettings
from services.gateway.identity.settings import PREFIX as IDENTITY_PREFIX
from services.gateway.identity.settings import IdentitySettings
from services.gateway.rest.openapi import document
from services.gateway.settings import GatewaySettings
from services.gateway.store.s3.settings import PREFIX as S3_PREFIX
from services.gateway.store.s3.settings import S3Settings
from services.gateway.web.settings import PREFIX as WEB_PREFIX
from services.gateway.web.settings import WebSettings
from services.inference.delivery.settings import DeliverySettings
from services.inference.gpu_metrics import GpuMetrics
from services.inference.hosts.settings import PREFIX as RANK_HOST_PREFIX
from services.inference.hosts.settings import RankHostSettings
from services.inference.settings import InferenceSettings
from services.ui.settings import UiSettings

DOCS = Path(__file__).parents[1] / "docs"
SETTINGS = {
    "Gateway": ("SEEDVR2_GATEWAY", GatewaySettings),
    "Identity (the gateway)": (IDENTITY_PREFIX, IdentitySettings),
    "Object store (the gateway, and `python -m services.gateway.store.bucket`)": (S3_PREFIX, S3Settings),
    "Users' buckets (the gateway)": (BUCKETS_PREFIX, BucketSettings),
    "Sources on the web, and webhooks (the gateway)": (WEB_PREFIX, WebSettings),
    "Inference": ("SEEDVR2_INFERENCE", InferenceSettings),
    "Rank host (`python -m services.inference.hosts`)": (RANK_HOST_PREFIX, RankHostSettings),
    "Traces (gateway, inference and UI)": (TRACING_PREFIX, TracingSettings),
    "UI": ("SEEDVR2_UI", UiSettings),
    "Model delivery (`python -m services.inference.models`)": ("SEEDVR2_MODELS", DeliverySettings),
}


def settings_page() -> str:
    """Every setting: its environment variable, default and meaning."""
    parts = [
        "# Which settings are there?",
        "Each service reads its settings once, at start, from the environment. A name that is not listed here is refused, so a "
        "misspelt one is never ignored in silence. Lists are separated by commas.",
    ]
    for title, (prefix, cls) in SETTINGS.items():
        rows = [(f"`{prefix}_{f.name.upper()}`", _default(f.default), f.metadata["help"]) for f in dataclasses.fields(cls)]
        parts += [f"## {title}", _table(("variable", "default", "meaning"), rows)]
    return _page(parts)


def errors_page() -> str:
    """Every error: its status code and what it means."""
    rows = []
    for name, cls in sorted(all_errors().items()):
        meaning = (cls.__doc__ or "").split("\n")[0]
        rows.append((f"`{name}`", code_of(cls).name, "yes" if cls.retryable else "", meaning))
    return _page(
        [
            "# Which errors can a caller get?",
            "An error carries a canonical gRPC code and google.rpc details: `ErrorInfo` (`reason` is the name below, `domain` is "
            "`seedvr2`), `BadRequest` with the path of the wrong field, `ResourceInfo` with the kind of what is missing, "
            "`RetryInfo` where a retry makes sense. The client "
            "raises the same classes again (`services/common/errors.py`); the command line prints the sentence, or with `--json` "
            'one object `{"error": {"code": …, "message": …}}`.',
            _table(("reason", "code", "retry helps", "meaning"), rows),
        ]
    )


_HEAD = ("metric", "type", "labels", "meaning")
_TOTAL = {"counter": "_total", "gauge": ""}


def metrics_page() -> str:
    """Every metric: its type, labels and meaning."""
    parts = ["# What is measured?", "Prometheus text format under `/metrics`; units are in the names, counters end in `_total`."]
    services = (
        ("Gateway", GatewayMetrics), ("Inference", InferenceMetrics), ("Rank host", RankHostMetrics), ("UI", UiMetrics),
    )  # fmt: skip
    for title, cls in services:
        metrics: list[MetricWrapperBase] = list(vars(cls(CollectorRegistry())).values())
        rows = [(f"`{_exposed(m)}`", m._type, ", ".join(m._labelnames), m._documentation) for m in metrics]
        parts += [f"## {title}", _table(_HEAD, rows)]
    parts += ["## GPUs of an inference pod", "From NVIDIA's management library; where there is no GPU there are none."]
    rows = [(f"`{m.name}{_TOTAL[m.type]}`", m.type, ", ".join(m._labelnames), m.documentation) for m in GpuMetrics("").describe()]
    return _page([*parts, _table(_HEAD, rows)])


def openapi_page() -> str:
    """The OpenAPI document of the HTTP API."""
    return json.dumps(document(importlib.metadata.version("seedvr2")), indent=1, ensure_ascii=False) + "\n"


PAGES = {
    "openapi.json": openapi_page,
    "settings.md": settings_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "memory.md": memory_page,
}


def _exposed(metric: MetricWrapperBase) -> str:
    return metric._name + ("_total" if metric._type == "counter" else "")


def _default(value: Any) -> str:
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text and value is not None else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _page(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    chart.main()


if __name__ == "__main__":
    main()
