"""With a real Prometheus: every panel of the dashboards shows something after a job, and alerts reach whom they should."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.dashboards import DASHBOARDS, Panel
from services.common.client import GatewayClient
from tests.clips import make
from tests.integration.gateway_calls import finished, request
from tests.integration.monitored import monitored
from tests.integration.processes import Process
from tests.integration.prometheus import Monitoring

pytestmark = pytest.mark.integration

ALERTS = Path(__file__).parents[2] / "helm" / "seedvr2" / "files" / "alerts.yaml"
# Whatever moved since the start is seen, also where a machine takes its time.
_INTERVAL = "10m"


def quick_rules(directory: Path) -> Path:
    """The chart's alerts, which wait no longer than a second."""
    rules = yaml.safe_load(ALERTS.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if "for" in rule):
        rule["for"] = "1s"
    (directory / "alerts.yaml").write_text(yaml.safe_dump(rules))
    return directory / "alerts.yaml"


async def restore(front: Process, directory: Path) -> None:
    """One job, its result fetched."""
    async with GatewayClient(front.address) as client:
        upload = await client.upload_file(make.video(directory / "a.mp4", frames=8))
        await client.create_job(request(upload, scale=1.0), "job")
        await finished(client, "job")
        await client.download_result("job", directory / "result.mp4")


async def values_of(prometheus: Monitoring, query: str) -> list[float]:
    """Of each series, without those of which nothing is known yet."""
    found: list[dict[str, Any]] = await prometheus.query(query.replace("$__rate_interval", _INTERVAL))
    return [value for each in found if not math.isnan(value := float(each["value"][1]))]


async def test_every_panel_shows_something_and_a_lost_worker_is_reported(tmp_path: Path):
    async with monitored(tmp_path, quick_rules(tmp_path)) as it:
        prometheus = it.prometheus
        await restore(it.gateway, tmp_path)
        for moved in ("seedvr2_spans_total", "seedvr2_jobs_ended_total", "seedvr2_download_bytes_total"):
            await prometheus.until(f"sum(rate({moved}[{_INTERVAL}])) > 0")
        empty = [
            f"{title}: {panel.title}: {query}"
            for title, panels in DASHBOARDS.values()
            for panel in panels
            for query, _ in panel.queries
            if not await values_of(prometheus, query) and not panel.rare
        ]
        assert not empty, "\n".join(empty)
        assert {alert["labels"]["alertname"] for alert in prometheus.told} <= {"Seedvr2GpuErrors"}
        await it.workers[0].kill()
        told = await prometheus.until_told("Seedvr2WorkersLost")
        assert told["labels"] | {"state": "lost", "severity": "warning"} == told["labels"]
        assert told["annotations"]["summary"] == "1 workers are lost."


def test_dashboards_and_alerts_name_only_metrics_that_are_documented():
    documented = set(re.findall(r"`(seedvr2_\w+)`", (ALERTS.parents[3] / "docs" / "metrics.md").read_text()))
    queries = [query for _, panels in DASHBOARDS.values() for panel in panels for query, _ in panel.queries]
    rules = yaml.safe_load(ALERTS.read_text())
    queries += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for query in queries for name in re.findall(r"seedvr2_\w+", query)}
    assert named - documented == set()


def test_panels_that_may_be_empty_are_few():
    panels: list[Panel] = [panel for _, each in DASHBOARDS.values() for panel in each]
    assert sum(panel.rare for panel in panels) < len(panels) / 4
