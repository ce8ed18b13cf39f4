"""The page of reviews in a real browser, by keyboard alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cloud_tier.reviews import looking
from fakes.review_browser import NARROW, WIDE, ReviewPort, chromium, review_port, screenshots
from fakes.review_reports import report, sent
from runtime.messages import Tensors

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.timeout(120)
NAMES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot",
)  # fmt: skip


def picture(number: int) -> Tensors:
    rows, columns = np.mgrid[0:28, 0:28]
    disc = np.hypot(rows - 14, columns - 14) < 4 + 2 * number
    return {"image": disc.astype(np.float32)[None]}


async def filled(port: ReviewPort, num: int = 5) -> None:
    for number in range(num):
        said = report(
            f"item-{number}",
            picture(number),
            labels=NAMES,
            chance=number / 10,
            answers='[{"tier":"edge","label":6},{"tier":"cloud","label":0}]',
        )
        await port.store.apply(sent(said, at_s=time.time() - 2400))


async def shown(page: Page, item: str) -> None:
    await page.wait_for_selector(f'[data-item="{item}"] .review-labels')


async def test_five_items_by_keyboard_with_a_reload_in_the_middle(tmp_path: Path) -> None:
    async with chromium() as browser, review_port(tmp_path) as port:
        await filled(port)
        page = await port.open(browser, size=WIDE, scheme="light")
        await page.wait_for_selector("#who")
        await page.keyboard.type("ann")
        await page.keyboard.press("Enter")
        await shown(page, "item-0")
        hidden = await page.content()
        await page.keyboard.press("1")
        await shown(page, "item-1")
        told = await page.inner_text(".review-told")
        await page.keyboard.press("2")
        await shown(page, "item-2")
        await page.keyboard.press("9")
        await shown(page, "item-3")
        await page.keyboard.press("u")
        await shown(page, "item-2")
        await page.reload()
        await shown(page, "item-2")
        await page.keyboard.press("3")
        await shown(page, "item-3")
        await page.keyboard.press("s")
        await shown(page, "item-4")
        await page.keyboard.press("?")
        await page.wait_for_selector("#review-help")
        await page.keyboard.press("0")
        await page.wait_for_selector("#review-done")
        spoken = await page.inner_text("#review-live")
        rows = await looking.page(port.store, [], limit=10)
        cases = [(await port.store.find(row.item))[1] for row in rows]

    assert "review-told" not in hidden
    assert "regional" not in hidden
    assert "Shirt ≠" in told
    assert "T-shirt ✓" in told
    assert "Labelled Boot" in spoken
    assert [row.winner for row in rows] == [0, 1, 2, None, 9]
    assert [[one.who for one in case.given] for case in cases] == [["ann"]] * 5
    assert port.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "size"), [("wide", WIDE), ("narrow", NARROW)])
async def test_it_fits_a_desk_and_a_phone_by_day_and_night(
    tmp_path: Path, name: str, size: dict[str, int], scheme: str
) -> None:
    async with chromium() as browser, review_port(tmp_path, wanted=2) as port:
        await filled(port)
        for item, label in (("item-0", 0), ("item-1", 6), ("item-2", 2)):
            await port.store.give(item, "bob", label)
        for item, label in (("item-1", 0), ("item-2", 2)):
            await port.store.give(item, "eve", label)
        page = await port.open(browser, size=size, scheme=scheme)
        await page.wait_for_selector("#who")
        await page.keyboard.type("ann")
        await page.keyboard.press("Enter")
        await shown(page, "item-0")
        await page.keyboard.press("1")
        await shown(page, "item-1")
        await page.wait_for_selector(".review-side table")
        await page.wait_for_function(
            "document.querySelector('.review-picture')?.naturalWidth === 28"
        )
        target = screenshots(tmp_path) / f"review-{name}-{scheme}.png"
        await page.screenshot(path=target, full_page=True)
        width = await page.evaluate("document.documentElement.scrollWidth")
        heights = await page.evaluate(
            "[...document.querySelectorAll('.review-labels button')]"
            ".map((one) => one.getBoundingClientRect().height)"
        )

    assert target.stat().st_size > 1000
    # Nothing is to be scrolled sideways, and a thumb finds each button.
    assert width <= size["width"]
    assert min(heights) >= 40
    assert port.complaints == []


async def test_a_series_is_drawn_and_what_has_no_inputs_is_not_given(tmp_path: Path) -> None:
    async with chromium() as browser, review_port(tmp_path) as port:
        times = np.linspace(0, 12, 128)
        lines = np.stack([np.sin(times + shift) for shift in range(3)], axis=1)
        walk: Tensors = {"signal": lines[None].astype(np.float32)}
        await port.store.apply(sent(report("walk", walk, labels=("walking", "sitting"))))
        await port.store.apply(sent(report("stays", residency="region")))
        page = await port.open(browser, size=WIDE, scheme="light")
        await page.wait_for_selector("#who")
        await page.keyboard.type("ann")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".review-series polyline >> nth=2")
        drawn = await page.get_attribute(".review-series polyline", "points")
        await page.screenshot(path=screenshots(tmp_path) / "review-series.png", full_page=True)
        await page.keyboard.press("2")
        await page.wait_for_selector("#review-done")

    assert drawn is not None
    assert len(drawn.split()) == 128
    assert "NaN" not in drawn
    assert port.complaints == []
