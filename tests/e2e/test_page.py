"""The page in a real browser before all real services: what a person with a bad video does."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.cli.local import LocalStack, StackOptions
from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.e2e.page_fixtures import Browsed, browse, chromium_path
from tests.unit.ui.clips import tiny_clip

pytestmark = pytest.mark.e2e
SHORT, LONG = 6, 96


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDVR2_GATEWAY_SEGMENT_FRAMES", "4")
    monkeypatch.setenv("SEEDVR2_INFERENCE_TORCH_THREADS", "2")


@pytest.mark.timeout(300)
async def test_a_person_restores_a_bad_video_and_changes_their_mind_about_another(tmp_path: Path) -> None:
    chromium_path()
    files = write_files(tmp_path)
    async with stack(tmp_path / "data") as (page, client), browse(page, accept_downloads=True) as browsed:
        await browsed.open()
        await a_text_is_refused_in_words(browsed, files["text"])
        await a_job_survives_a_reload_and_ends(browsed, files["short"])
        await the_result_plays_and_is_compared(browsed)
        await the_download_is_what_the_gateway_has(browsed, client)
        await browsed.page.get_by_text("New video").click()
        await a_long_job_shows_what_it_has_and_is_cancelled(browsed, files["long"])
        await the_worker_is_free_again(client)


@asynccontextmanager
async def stack(directory: Path) -> AsyncIterator[tuple[str, GatewayClient]]:
    """All services; where the page is, and a client of the gateway."""
    options = StackOptions(data_directory=directory, page_port=0)
    async with LocalStack(options, lambda _: None) as running, GatewayClient(running.gateway_address) as client:
        yield f"http://{running.page_address}", client


def write_files(directory: Path) -> dict[str, Path]:
    """What the person has."""
    contents = {
        "text": ("note.mp4", b"This is no video, whatever its name says. " * 50),
        "short": ("holiday.mp4", tiny_clip(frames=SHORT)),
        "long": ("film.mp4", tiny_clip(frames=LONG)),
    }
    for name, data in contents.values():
        (directory / name).write_bytes(data)
    return {kind: directory / name for kind, (name, _) in contents.items()}


async def a_text_is_refused_in_words(browsed: Browsed, path: Path) -> None:
    await browsed.choose(path)
    words = await browsed.text("#file-notice [role=alert]")
    assert "can't be read" in words or "video" in words
    assert await browsed.page.locator("#start").is_disabled()
    await browsed.screenshot("not-a-video")
    await browsed.page.get_by_text("Choose another").click()


async def a_job_survives_a_reload_and_ends(browsed: Browsed, path: Path) -> None:
    await browsed.choose(path)
    await browsed.wait_text("#plan", "64 × 48 → 128 × 96")
    await browsed.wait_text("#plan", f"{SHORT} frames")
    await browsed.screenshot("plan")
    await browsed.page.click("#start:not([disabled])")
    await browsed.page.wait_for_url("**/?job=*")
    address = browsed.page.url
    await browsed.page.reload()
    await browsed.wait_text("#headline", "holiday.mp4")
    await browsed.wait_text("#progress", f"{SHORT} frames restored")
    assert browsed.page.url == address


async def the_result_plays_and_is_compared(browsed: Browsed) -> None:
    page = browsed.page
    for name in ("result-video", "source-video"):
        await page.wait_for_function(f"document.getElementById('{name}').readyState >= 3")
    await page.evaluate("document.getElementById('result-video').play()")
    await page.wait_for_function("document.getElementById('result-video').currentTime > 0.1")
    # The two play together.
    await page.wait_for_function("document.getElementById('source-video').currentTime > 0.1")
    await page.locator("#compare img").nth(1).wait_for()
    await page.wait_for_function("[...document.querySelectorAll('#compare img')].every((i) => i.naturalWidth === 128)")
    await page.get_by_text("Details").click()
    await browsed.wait_text("#details", "Time by stage")
    await browsed.wait_text("#details", "Checks of the result")
    assert "(failed)" not in await browsed.text("#details")
    await browsed.screenshot("result")


async def the_download_is_what_the_gateway_has(browsed: Browsed, client: GatewayClient) -> None:
    async with browsed.page.expect_download() as coming:
        await browsed.page.click("#download")
    download = await coming.value
    job = (await client.list_jobs()).jobs[0]
    data = (await download.path()).read_bytes()
    assert download.suggested_filename == job.result.filename
    assert hashlib.sha256(data).hexdigest() == job.result.sha256
    part = await browsed.page.request.get(f"{browsed.address}/files/jobs/{job.job_id}/result", headers={"Range": "bytes=100-199"})
    assert (part.status, await part.body()) == (206, data[100:200])


async def a_long_job_shows_what_it_has_and_is_cancelled(browsed: Browsed, path: Path) -> None:
    await browsed.choose(path)
    await browsed.page.click("#start:not([disabled])")
    await browsed.page.wait_for_selector("live-picture[ready]")
    await browsed.page.wait_for_selector("growing-video[ready]")
    await the_player_goes_on_while_segments_come(browsed)
    words = await browsed.text("#progress")
    assert f"of {LONG} frames" in words
    assert "frames/s" in words
    await browsed.screenshot("live")
    await browsed.page.click("#cancel")
    await browsed.wait_text("#progress", "Cancelled")
    await browsed.screenshot("cancelled")


async def the_player_goes_on_while_segments_come(browsed: Browsed) -> None:
    page = browsed.page
    await page.evaluate("window.player = document.querySelector('growing-video')")
    shown = await page.get_attribute("live-picture", "src")
    await page.wait_for_function("(shown) => document.querySelector('live-picture').getAttribute('src') !== shown", arg=shown)
    assert await page.evaluate("window.player === document.querySelector('growing-video')")
    # The last picture stays until the next one is loaded.
    assert await page.is_visible("live-picture")
    assert await page.is_visible("growing-video")


async def the_worker_is_free_again(client: GatewayClient) -> None:
    async with asyncio.timeout(60):
        while any(worker.free_slots == 0 or worker.state != "ready" for worker in (await client.cluster_status()).workers):
            await asyncio.sleep(0.1)
    assert not list((await client.list_jobs(states=[pb.JOB_STATE_RESTORING])).jobs)
