"""A real browser for tests of the page, that remembers whatever went wrong in it."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, async_playwright

OUTPUT = Path(__file__).parents[2] / "test-output"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


class Browsed:
    """A page and its troubles."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.troubles: list[str] = []
        """Errors of scripts and requests to other hosts."""
        self._host = urlsplit(address).netloc
        page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))
        page.on("request", lambda request: self._check_host(request.url))

    async def open(self, path: str = "/") -> None:
        """Go to a path and wait until the page shows one of its two parts."""
        await self.page.goto(self.address + path)
        await self.page.wait_for_selector("#home:visible, #job:visible")

    async def choose(self, path: Path) -> None:
        """Choose a file to upload."""
        await self.page.set_input_files("#video-file", path)

    async def text(self, selector: str) -> str:
        """The words of an element that is visible, on one line."""
        element = await self.page.wait_for_selector(selector)
        assert element
        return " ".join((await element.inner_text()).split())

    async def wait_text(self, selector: str, words: str) -> None:
        """Return once an element has ``words`` in its text."""
        await self.page.locator(selector, has_text=words).first.wait_for()

    async def screenshot(self, name: str) -> None:
        """Keep what the page looks like under test-output/."""
        OUTPUT.mkdir(exist_ok=True)
        await self.page.screenshot(path=OUTPUT / f"page-{name}.png", full_page=True)

    def _check_host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.netloc != self._host:
            self.troubles.append(f"request to another host: {url}")


@contextlib.asynccontextmanager
async def browse(address: str, **options: Any) -> AsyncIterator[Browsed]:
    """A page of a fresh headless Chromium; fails at the end if scripts failed or another host was asked."""
    options = {"viewport": {"width": 1280, "height": 900}, **options}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=_FLAGS)
        try:
            context = await browser.new_context(**options)
            context.set_default_timeout(60_000)
            browsed = Browsed(await context.new_page(), address)
            yield browsed
        finally:
            await browser.close()
    assert not browsed.troubles


def chromium_path() -> str:
    """Where Chromium is; without one the test is skipped, or fails where CI=true promises one."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None and os.environ.get("CI") == "true":
        pytest.fail("Chromium is not installed, and CI=true says that it must be.")
    return path or pytest.skip("Chromium is not installed: apt-get install chromium")
