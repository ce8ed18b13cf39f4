"""A real browser without a window, for the pages of the operators' port."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, async_playwright

from fakes.programs import TierProgram

WIDE, NARROW = (1280, 800), (390, 844)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def find_chromium() -> str:
    """The program; in CI it has to be there."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        assert os.environ.get("CI") != "true", "apt-get install chromium"
        pytest.skip("there is no chromium")
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Chromium, ended afterwards."""
    program = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Screen:
    """A page of the dashboard, and whatever the browser has complained about."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    async def go(self, path: str) -> None:
        """Goes to a page of the dashboard and waits until nothing is loading on it."""
        await self.page.goto(f"{self.url}/#{path}")
        await self.settled()

    async def settled(self) -> None:
        """Waits until the page has a heading and nothing says that it is loading."""
        await self.page.wait_for_function(
            "() => document.querySelector('main h1')"
            " && !document.body.innerText.includes('Loading …')"
        )

    async def text(self) -> str:
        """What a reader sees."""
        return await self.page.inner_text("main")

    async def says(self, text: str, timeout_s: float = 15.0) -> None:
        """Waits until it is somewhere on the page."""
        await self.page.wait_for_function(
            "wanted => document.body.innerText.includes(wanted)",
            arg=text,
            timeout=1000 * timeout_s,
        )

    async def overhang(self) -> int:
        """By how many pixels the page is wider than the screen."""
        found: int = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return found


@asynccontextmanager
async def screen(
    browser: Browser,
    url: str,
    token: str,
    size: tuple[int, int] = WIDE,
    scheme: Literal["light", "dark"] = "light",
) -> AsyncIterator[Screen]:
    """A browser of its own that has logged in by the token in the address."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    page = await context.new_page()
    shown = Screen(page, url)
    page.on(
        "console",
        lambda said: (
            shown.problems.append(said.text) if said.type in ("error", "warning") else None
        ),
    )
    page.on("pageerror", lambda error: shown.problems.append(str(error)))
    await page.goto(f"{url}/#token={token}")
    await page.wait_for_selector("header")
    try:
        yield shown
    finally:
        await context.close()


def access(program: TierProgram) -> tuple[str, str]:
    """Where the operators' port of a cloud tier is, and what opens it."""
    said = json.loads(Path(program.operator_file).read_text())
    return said["url"], said["token"]


def pictures_in(tmp_path: Path) -> Path:
    """Where pictures of the pages go."""
    folder = Path(os.environ.get("TIERWISE_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
