"""The page in a real browser, before a simulated gateway."""

import asyncio
from pathlib import Path

from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.e2e.page_fixtures import Browsed, browse
from tests.unit.ui.clips import tiny_clip
from tests.unit.ui.fake_gateway import FakeGateway, served
from tests.unit.ui.serving import served_page


def clip_file(directory: Path) -> Path:
    path = directory / "holiday.mp4"
    path.write_bytes(tiny_clip())
    return path


async def test_a_video_is_uploaded_planned_restored_and_compared(tmp_path: Path) -> None:
    gateway = FakeGateway()
    async with served(gateway) as address, served_page(address) as page, browse(page) as browsed:
        await browsed.open()
        assert await browsed.text("#top [role=status]") == "1 worker ready"
        assert "SeedVR2 3B · not running now" in await browsed.text("#model")
        # The connection breaks once in the middle; the page goes on by itself.
        gateway.write_limit_bytes = 1
        await browsed.choose(clip_file(tmp_path))
        await browsed.wait_text("#plan", "64 × 48 → 128 × 96")
        assert next(iter(gateway.uploads.values())).data == tiny_clip()
        assert "upload=" in browsed.page.url
        await the_options_change_the_plan(browsed)
        await browsed.page.click("#start")
        await browsed.wait_text("#progress", "24 frames restored")
        job = next(iter(gateway.jobs.values()))
        assert browsed.page.url.endswith(f"?job={job.job_id}")
        assert (job.request.model, job.request.seed, job.request.target.scale) == ("nano", 12, 3.0)
        await the_result_can_be_compared(browsed, job)


async def the_options_change_the_plan(browsed: Browsed) -> None:
    await browsed.page.locator("#size").get_by_text("Same size").click()
    await browsed.wait_text("#plan", "64 × 48 → 64 × 48")
    await browsed.page.locator("#size").get_by_text("Scale").click()
    await browsed.page.locator("#scale input[type=number]").fill("3")
    await browsed.wait_text("#plan", "64 × 48 → 192 × 144")
    await browsed.page.get_by_text("More options").click()
    await browsed.page.locator("#seed input").fill("12")
    await browsed.page.locator("#seed input").press("Tab")


async def the_result_can_be_compared(browsed: Browsed, job: pb.Job) -> None:
    # The frame chooser reaches its middle a moment after the pictures appear.
    for of in ("source", "result"):
        await browsed.page.locator(f"#compare img[src='/files/jobs/{job.job_id}/frames/{of}/11.png?max_side=1920']").wait_for()
    await browsed.page.locator("#frame input[type=number]").fill("24")
    await browsed.page.locator("#frame input[type=number]").press("Enter")
    await browsed.page.locator("#compare img[src*='/frames/result/23.png']").wait_for()
    await browsed.page.wait_for_function("document.querySelector('#result-video').readyState >= 3")
    await browsed.page.get_by_text("Details").click()
    await browsed.wait_text("#details", "49 frames, as many as the source")


async def test_a_reload_keeps_an_upload_and_a_job_where_they_were(tmp_path: Path) -> None:
    gateway = FakeGateway()
    gateway.may_restore.clear()
    async with served(gateway) as address, served_page(address) as page, browse(page) as browsed:
        await browsed.open()
        await browsed.choose(clip_file(tmp_path))
        await browsed.wait_text("#plan", "64 × 48")
        await browsed.page.reload()
        await browsed.wait_text("#uploader", "holiday.mp4")
        await browsed.wait_text("#plan", "64 × 48")
        await browsed.page.click("#start:not([disabled])")
        await browsed.wait_text("#progress", "0 of 24 frames")
        await browsed.page.reload()
        await browsed.wait_text("#progress", "0 of 24 frames")
        gateway.may_restore.set()
        await browsed.wait_text("#progress", "24 frames restored")
        await browsed.page.get_by_text("New video").click()
        await browsed.wait_text("#jobs", "holiday.mp4")
    assert len(gateway.jobs) == 1


async def test_a_preview_leads_to_the_whole_which_can_be_cancelled_retried_and_deleted(tmp_path: Path) -> None:
    gateway = FakeGateway()
    async with served(gateway) as address, served_page(address) as page, browse(page) as browsed:
        browsed.page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
        await browsed.open()
        await browsed.choose(clip_file(tmp_path))
        await browsed.page.click("#preview:not([disabled])")
        await browsed.wait_text("#headline", "preview of 2 s")
        await browsed.page.wait_for_selector("#whole:visible")
        gateway.may_restore.clear()
        await browsed.page.click("#whole")
        await browsed.page.click("#cancel")
        await browsed.wait_text("#progress", "Cancelled")
        preview, whole = gateway.jobs.values()
        assert preview.request.priority == pb.PRIORITY_PREVIEW
        assert not whole.request.HasField("range")
        gateway.may_restore.set()
        await browsed.page.click("#retry")
        await browsed.wait_text("#progress", "24 frames restored")
        await browsed.page.click("#delete")
        await browsed.wait_text("#jobs", "preview")
    assert list(gateway.jobs) == [preview.job_id]
    assert browsed.page.url == page + "/"


async def test_what_went_wrong_is_said_in_words(tmp_path: Path) -> None:
    gateway = FakeGateway()
    note, empty, large = tmp_path / "note.txt", tmp_path / "empty.mp4", tmp_path / "large.mp4"
    note.write_text("This is no video.")
    empty.touch()
    large.write_bytes(bytes(10_001))
    async with served(gateway) as address, served_page(address, max_upload_bytes=10_000) as page, browse(page) as browsed:
        await browsed.open("/?job=gone")
        await browsed.wait_text("#notice [role=alert]", "There is no job gone")
        await browsed.choose(empty)
        await browsed.wait_text("#uploader [role=alert]", "This file is empty; choose another.")
        await browsed.choose(large)
        await browsed.wait_text("#uploader [role=alert]", "at most 10 kB are taken here")
        await browsed.choose(note)
        await browsed.wait_text("#file-notice [role=alert]", "note.txt can't be read: it is not a video.")
        assert await browsed.page.locator("#start").is_disabled()
        await browsed.page.get_by_text("Choose another").click()
        await browsed.page.wait_for_selector("#file-notice", state="hidden")
    assert not gateway.uploads


async def test_a_lost_gateway_is_said_and_found_again(tmp_path: Path) -> None:
    gateway = FakeGateway()
    gateway.may_restore.clear()
    async with served(gateway) as address, served_page(address, gateway_timeout_s=1.0) as page, browse(page) as browsed:
        await browsed.open()
        await browsed.choose(clip_file(tmp_path))
        await browsed.page.click("#start:not([disabled])")
        await browsed.wait_text("#progress", "0 of 24 frames")
        gateway.gone = True
        await browsed.wait_text("#trouble [role=alert]", "can't be reached right now")
        assert "0 of 24 frames" in await browsed.text("#progress")
        gateway.gone = False
        gateway.may_restore.set()
        await browsed.wait_text("#progress", "24 frames restored")
        assert not await browsed.page.locator("#trouble [role=alert]").count()


async def test_on_a_phone_in_the_dark_everything_fits_and_has_a_name() -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True, "has_touch": True}
    async with served(FakeGateway()) as address, served_page(address) as page, browse(page, **phone) as browsed:
        await browsed.open()
        await browsed.wait_text("#model", "Nano")
        assert await browsed.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        dark = "getComputedStyle(document.querySelector('.sv-card')).backgroundColor"
        assert await browsed.page.evaluate(dark) == "rgb(21, 26, 35)"
        await browsed.page.click("[data-theme-switch]")
        assert await browsed.page.evaluate(dark) == "rgb(255, 255, 255)"
        await browsed.page.reload()
        await browsed.wait_text("#model", "Nano")
        assert await browsed.page.evaluate(dark) == "rgb(255, 255, 255)"
        assert await browsed.page.evaluate(_NAMELESS) == []
        await browsed.screenshot("phone")


_NAMELESS = """[...document.querySelectorAll('input, button, video, select, textarea')].filter((e) => e.checkVisibility())
    .filter((e) => !(e.getAttribute('aria-label') || e.labels?.length
        || e.innerText?.trim() || e.title)).map((e) => e.outerHTML)"""
