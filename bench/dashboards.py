"""``python -m bench.dashboards``: pictures of the chart's dashboards of fleet and jobs, in docs/images.

A real Prometheus scrapes real services while jobs run, a worker is killed and comes back; then each panel's queries are asked for
over that time, and drawn as Grafana would.
"""

import argparse
import asyncio
import math
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, Formatter, ScalarFormatter

from scripts.dashboards import DASHBOARDS, Panel
from services.common.client import GatewayClient
from tests.clips.noisy import noisy_clip
from tests.integration.gateway_calls import finished, request
from tests.integration.monitored import Monitored, monitored
from tests.integration.prometheus import Monitoring

_IMAGES = Path(__file__).parents[1] / "docs" / "images"
_RULES = Path(__file__).parents[1] / "helm" / "seedvr2" / "files" / "alerts.yaml"
_INTERVAL, _STEP_S, _BEFORE_S, _AFTER_S = "10s", 2.0, 10.0, 15.0
_COLUMNS, _WIDTH, _HEIGHT, _DPI = 3, 5.2, 2.9, 75
_FRAMES = 24
# The third is about GPUs.
_DRAWN = ("fleet", "jobs")
_UNITS = {"bytes": "B", "Bps": "B/s"}
_MAX_LEGEND = 8


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a panel."""

    name: str
    """In the legend."""

    values: dict[int, float]
    """In the panel's unit, by the step; there are gaps."""


def main() -> None:
    """Run jobs, and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.dashboards", description=__doc__)
    parser.add_argument("--jobs", type=int, default=8, help="that are restored meanwhile")
    parser.add_argument("--output", type=Path, default=_IMAGES, help="directory of the pictures")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(Path(directory), chosen.jobs, chosen.output))


async def _run(directory: Path, jobs: int, output: Path) -> None:
    async with monitored(directory, _RULES, workers=2) as it:
        start = time.time()
        await asyncio.sleep(_BEFORE_S)
        await _work(it, directory, jobs)
        await asyncio.sleep(_AFTER_S)
        end = time.time()
        for name in _DRAWN:
            title, panels = DASHBOARDS[name]
            shown = [(panel, await _series(it.prometheus, panel, start, end)) for panel in panels if not panel.table]
            draw(output / f"dashboard-{name}.jpg", title, [(panel, series) for panel, series in shown if series])


async def _work(it: Monitored, directory: Path, jobs: int) -> None:
    """Restore a clip again and again, some at once; a worker dies when half is done."""
    clip = noisy_clip(directory / "clip.mp4", width=160, height=96, frames=_FRAMES)
    half = asyncio.Event()
    async with GatewayClient(it.gateway.address) as client, asyncio.TaskGroup() as group:
        upload = await client.upload_file(clip)
        group.create_task(_kill_and_restart(it, half))
        for number in range(jobs):
            group.create_task(_job(client, upload.upload_id, number, directory, half if number == jobs // 2 else None))
            await asyncio.sleep(2.0)


async def _job(client: GatewayClient, upload: str, number: int, directory: Path, done: asyncio.Event | None) -> None:
    # Each seed is a result of its own, which no earlier job's segments serve.
    await client.create_job(request(upload, scale=2.0, seed=number), f"job-{number}")
    await finished(client, f"job-{number}")
    if done is not None:
        done.set()
    await client.download_result(f"job-{number}", directory / f"{number}.mp4")


async def _kill_and_restart(it: Monitored, when: asyncio.Event) -> None:
    await when.wait()
    worker = it.workers[0]
    await worker.kill()
    await asyncio.sleep(5.0)
    await worker.restart(metrics_address=worker.ready["metrics_address"])


async def _series(prometheus: Monitoring, panel: Panel, start: float, end: float) -> list[Series]:
    found = []
    for query, legend in panel.queries:
        expression = query.replace("$__rate_interval", _INTERVAL)
        for each in await prometheus.query_range(expression, start, end, _STEP_S):
            values = {round((float(when) - start) / _STEP_S): float(value) for when, value in each["values"]}
            if any(math.isfinite(value) for value in values.values()):
                found.append(Series(_named(legend, each["metric"]), values))
    return found


def _named(legend: str, labels: dict[str, Any]) -> str:
    """As Grafana fills in a legend."""
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), legend).strip()


def draw(path: Path, title: str, panels: list[tuple[Panel, list[Series]]]) -> None:
    """One picture of a dashboard."""
    rows = math.ceil(len(panels) / _COLUMNS)
    figure, grid = pyplot.subplots(
        rows, _COLUMNS, figsize=(_WIDTH * _COLUMNS, _HEIGHT * rows), layout="constrained", squeeze=False
    )
    figure.suptitle(title, fontsize=16, fontweight="bold")
    for axes, drawn in zip(grid.flat, [*panels, *[None] * (rows * _COLUMNS - len(panels))], strict=True):
        if drawn is None:
            axes.axis("off")
        else:
            _draw_panel(axes, *drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)


def _draw_panel(axes: Axes, panel: Panel, series: list[Series]) -> None:
    last = max(max(each.values) for each in series)
    for each in series:
        values = [each.values.get(step, math.nan) for step in range(last + 1)]
        axes.plot([step * _STEP_S for step in range(last + 1)], values, label=each.name, linewidth=1.4)
    axes.set_title(panel.title + (" (s)" if panel.unit == "s" else ""), fontsize=11, loc="left")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds // 60:.0f}:{seconds % 60:02.0f}")
    axes.yaxis.set_major_formatter(_formatter(panel.unit))
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    if len(series) <= _MAX_LEGEND:
        axes.legend(fontsize=7, loc="best", framealpha=0.6)


def _formatter(unit: str) -> Formatter:
    return EngFormatter(_UNITS[unit]) if unit in _UNITS else ScalarFormatter()


if __name__ == "__main__":
    main()
