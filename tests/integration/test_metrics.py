"""Every metric of docs/metrics.md is there in a real run, and those that the run must move have moved."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from services.common.client import GatewayClient
from tests.clips import make
from tests.integration.gateway_calls import finished, request
from tests.integration.processes import Process, gateway, running

pytestmark = pytest.mark.integration

DOCUMENTED = Path(__file__).parents[2] / "docs/metrics.md"
GATEWAY_MOVES = (
    'seedvr2_jobs_ended_total{state="SUCCEEDED"}', "seedvr2_segments_stored_total", "seedvr2_segments_reused_total",
    "seedvr2_upload_bytes_total", "seedvr2_download_bytes_total", "seedvr2_job_duration_seconds_count",
    "seedvr2_join_duration_seconds_count", "seedvr2_span_wait_seconds_count", 'seedvr2_workers{state="ready"}',
    'seedvr2_requests_total{code="OK",method="CreateJob"}',
)  # fmt: skip
WORKER_MOVES = (
    "seedvr2_frames_restored_total", "seedvr2_pixels_restored_total", 'seedvr2_spans_total{outcome="done"}',
    'seedvr2_stage_duration_seconds_count{stage="dit"}', "seedvr2_span_duration_seconds_count",
    "seedvr2_span_peak_memory_bytes_count", "seedvr2_packet_bytes_total", "seedvr2_segment_bytes_total",
    'seedvr2_model_load_seconds{rank="0"}', 'seedvr2_rank_memory_bytes{rank="0"}', "seedvr2_ready", "seedvr2_rank_starts_total",
)  # fmt: skip


def documented(title: str) -> set[str]:
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", DOCUMENTED.read_text(), re.MULTILINE | re.DOTALL)
    assert section
    return set(re.findall(r"^\| `(\S+)`", section[1], re.MULTILINE))


async def scraped(process: Process) -> tuple[set[str], dict[str, float]]:
    """Names of families, and samples."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://{process.ready['metrics_address']}/metrics")).text
    names = set(re.findall(r"^# TYPE (seedvr2_\S+) ", text, re.MULTILINE))
    names = {name for name in names if not name.endswith("_created")}
    return names, {name: float(value) for name, value in re.findall(r"^(seedvr2_.*) (\S+)$", text, re.MULTILINE)}


async def test_a_real_run_emits_what_is_documented(tmp_path: Path):
    clip = make.video(tmp_path / "a.mp4", frames=8)
    worker = Process("services.inference", "SEEDVR2_INFERENCE", tmp_path / "w", metrics_address="127.0.0.1:0", torch_threads=1)
    async with running(worker):
        front = gateway(tmp_path / "gateway", worker, metrics_address="127.0.0.1:0")
        async with running(front), GatewayClient(front.address) as client:
            upload = await client.upload_file(clip)
            async with asyncio.timeout(120):
                while not any(model.ready for model in (await client.models()).models):
                    await asyncio.sleep(0.2)
            for job_id in ("first", "again"):
                await client.create_job(request(upload, scale=1.0), job_id)
                await finished(client, job_id)
            await client.download_result("first", tmp_path / "result.mp4")
            for process, title, moves in ((front, "Gateway", GATEWAY_MOVES), (worker, "Inference", WORKER_MOVES)):
                names, samples = await scraped(process)
                assert names == documented(title)
                assert {name: samples.get(name, 0.0) for name in moves if not samples.get(name)} == {}
                assert any(name.startswith(f"seedvr2_{'gateway' if title == 'Gateway' else 'model'}_info") for name in samples)
