"""A real Chromium in front of the operators' port, with reviews behind it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloud_tier.operators.access import read_operator_file
from cloud_tier.operators.fleet_view import FleetView
from cloud_tier.operators.listener import operators_listening
from cloud_tier.reviews.http_api import ReviewsApi
from cloud_tier.reviews.store import Bounds, ReviewStore
from cloud_tier.telemetry.database import open_engine
from runtime.adapters.clock import SystemClock

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

_PATIENCE_MS = 15_000
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser; the test is skipped where there is none, and fails in CI."""
    found = shutil.which("chromium")
    try:
        from playwright.async_api import async_playwright  # noqa: PLC0415
    except ImportError:
        found = None
    if not found:
        text = "no Chromium on this machine: apt-get install chromium; pip install playwright"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


class ReviewPort:
    """Where the port is, the store behind it, and what pages have complained of."""

    def __init__(self, url: str, token: str, store: ReviewStore) -> None:
        self.url, self.token, self.store = url, token, store
        self.complaints: list[str] = []

    async def open(self, browser: Browser, *, size: dict[str, int], scheme: str) -> Page:
        """The page of reviews in a new profile, logged in."""
        context = await browser.new_context(
            viewport={"width": size["width"], "height": size["height"]},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = await context.new_page()
        page.set_default_timeout(_PATIENCE_MS)
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        # No other page is shown on the way: only reviews are served here.
        await page.goto(f"{self.url}/#/review")
        await page.fill("#token", self.token)
        await page.keyboard.press("Enter")
        await page.wait_for_selector("header")
        return page

    def _note(self, kind: str, text: str) -> None:
        # Whoever is not logged in yet is told so, and the browser logs it.
        if kind == "error" and "401" not in text:
            self.complaints.append(text)


@asynccontextmanager
async def review_port(folder: Path, *, wanted: int = 1) -> AsyncIterator[ReviewPort]:
    """The operators' port with a store of reviews."""
    clock = SystemClock()
    engine = open_engine(f"sqlite:///{folder / 'telemetry.sqlite'}")
    store = ReviewStore(engine, Bounds(wanted=wanted), wall_s=clock.wall_s)
    # The page asks whether there are reviews.
    view = FleetView(clock, "cloud", features={"telemetry": True})
    adders = [ReviewsApi(store).add_routes, view.add_routes]
    try:
        async with operators_listening(folder, 0, clock, adders) as url:
            access = read_operator_file(folder / "operator.json")
            assert access is not None
            yield ReviewPort(url, access.token, store)
    finally:
        store.close()
        engine.dispose()


def screenshots(tmp_path: Path) -> Path:
    """Where pictures of pages go."""
    folder = Path(os.environ.get("TIERWISE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
