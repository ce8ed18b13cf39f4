"""What an operator does in a day, in a real browser, while the demo runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser

from fakes.brokers import launch
from fakes.browser import NARROW, SCHEMES, WIDE, Screen, pictures_in, screen
from fakes.waiting import until
from tierwise.cloud_client import CloudClient
from tierwise.demo import plan, rollout_plan
from tierwise.demo.rollout import Load
from tierwise.demo.rollout_stage import RolloutStage, rollout_stage
from tierwise.demo.variations import AS_GOOD
from tierwise.operator_access import access_in, client_in

pytestmark = pytest.mark.timeout(240)
PAGES = ("/", "/escalations", "/fleet", "/rollouts", "/drift", "/review", "/control", "/audit")
REVIEWS = "/api/v1/reviews"
BUDGET_MS = 500.0


@asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[RolloutStage]:
    """The demo with three agents, which are asked about pictures all the while."""
    launch(folder / "probe", "auto").stop()
    async with rollout_stage(
        folder, plan.agent_names(3), prefer="auto", budget_ms=BUDGET_MS, note=lambda _: None
    ) as stage:
        asking = asyncio.create_task(Load(stage, BUDGET_MS, 40.0).run())
        try:
            yield stage
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def watch_it_live(shown: Screen) -> None:
    await shown.says("3 of 3")
    await shown.page.wait_for_selector(".tile rect.fill-edge", state="attached")
    await shown.page.wait_for_selector(".lines a[href*='id=']")
    newest = shown.page.locator(".lines a[href*='id=']").first
    before = await newest.get_attribute("href")
    # Without a reload, somebody else is at the top.
    await until(lambda: newest.get_attribute("href"), lambda now: now != before)


async def open_an_explanation(shown: Screen) -> None:
    rows = shown.page.locator("table a[href*='id=']")

    async def num_rows() -> int:
        # A page of what was does not change by itself.
        await shown.go("/escalations?answered_by=cloud")
        await shown.page.reload()
        await shown.settled()
        return await rows.count()

    await until(num_rows, lambda num: num > 0)
    await rows.first.click()
    await shown.page.wait_for_selector(".hops")
    hops = await shown.page.locator(".hop h3").all_inner_texts()
    assert [one.split()[0] for one in hops] == ["edge", "regional", "cloud"]
    await shown.says("In the end: ")


async def label_five(shown: Screen, client: CloudClient) -> None:
    await until(lambda: _num_open(client), lambda num: num >= 5, 60.0)
    await shown.go("/review")
    await shown.page.wait_for_selector("#who")
    keyboard = shown.page.keyboard
    await keyboard.type("ann")
    await keyboard.press("Enter")
    labelled: list[str] = []
    for key in "13579":
        labelled.append(await _next_item(shown, labelled))
        await keyboard.press(key)
    given = await until(lambda: _labels_of(client, labelled), all)
    assert given == [[("ann", label)] for label in (0, 2, 4, 6, 8)]


async def _next_item(shown: Screen, before: list[str]) -> str:
    """The item that is shown, when it is none of those before."""
    item = shown.page.locator("[data-item]:has(.review-labels)")
    return (
        await until(
            lambda: item.get_attribute("data-item"), lambda name: name and name not in before
        )
        or ""
    )


async def _num_open(client: CloudClient) -> int:
    return len((await client.get(REVIEWS))["items"])


async def _labels_of(client: CloudClient, items: list[str]) -> list[list[tuple[str, int]]]:
    said = [await client.get(f"{REVIEWS}/{item}") for item in items]
    return [[(one["who"], one["label"]) for one in case.get("given", ())] for case in said]


async def stop_and_resume_the_region(shown: Screen, agent_url: str) -> None:
    await shown.go("/control")
    await shown.page.get_by_role("button", name="Stop …").click()
    await shown.page.select_option("dialog [name=region]", plan.REGION)
    await _send(shown, confirm="stop", why="the lamp is broken", by="Ada")
    await shown.says("Ada: the lamp is broken")
    assert await _outcome(agent_url) == ("abstained", "stopped")
    await shown.page.get_by_role("button", name="Resume").click()
    await _send(shown, confirm="resume", why="a new lamp", by="Ada")
    await shown.says("Nothing is stopped.")
    await until(lambda: _outcome(agent_url), lambda found: found[0] == "answered")


async def start_and_abort_a_rollout(shown: Screen) -> None:
    await shown.go("/rollouts")
    await shown.says("There is no rollout yet.")
    await shown.page.get_by_role("button", name="Start a rollout").click()
    await shown.page.check("dialog [name=no_shadow]")
    await _send(
        shown,
        model=rollout_plan.MODEL,
        version=str(AS_GOOD.version),
        shares="100",
        why="better",
        by="Ada",
    )
    await shown.page.wait_for_selector("h2:has-text('Waves')")
    await shown.says("canary")
    await shown.page.get_by_role("button", name="Abort").click()
    await _send(shown, confirm=rollout_plan.MODEL, why="not today", by="Ada")
    await shown.says("aborted")


async def _send(shown: Screen, **values: str) -> None:
    for name, value in values.items():
        await shown.page.fill(f"dialog [name={name}]", value)
    await shown.page.click("dialog button[type=submit]")


async def _outcome(agent_url: str) -> tuple[str, str]:
    """How a grey picture ends at this agent."""
    tensor = {"name": "image", "shape": [1, 28, 28], "datatype": "FP32", "data": [0.5] * 784}
    body = {"inputs": [tensor], "parameters": {"remaining_ms": BUDGET_MS}}
    url = f"{agent_url}/v2/models/fashion/infer"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        said = (await response.json())["parameters"]
    return said["outcome"], said["reason"]


async def test_a_day_of_an_operator_over_the_demo(browser: Browser, tmp_path: Path) -> None:
    async with demo(tmp_path) as stage, client_in(stage.cloud_state) as client:
        access = access_in(stage.cloud_state / "operator.json")
        async with screen(browser, access.url, access.token) as shown:
            await watch_it_live(shown)
            await open_an_explanation(shown)
            await label_five(shown, client)
            await stop_and_resume_the_region(shown, stage.agent_urls[0])
            await start_and_abort_a_rollout(shown)
            await shown.go("/audit")
            audit = await shown.text()
            assert shown.problems == []
        taken = await _pictures(browser, access.url, access.token, pictures_in(tmp_path))

    for deed in ("stop of all by Ada", "a new lamp", "rollout start", "rollout abort"):
        assert deed in audit
    assert len(taken) == len(PAGES) * len(SCHEMES) * 2


async def _pictures(browser: Browser, url: str, token: str, folder: Path) -> list[Path]:
    """Every page with what the day has left on it, at a desk and in a hand, by day and night."""
    taken = []
    for size in (WIDE, NARROW):
        for scheme in SCHEMES:
            async with screen(browser, url, token, size, scheme) as shown:
                for path in PAGES:
                    await shown.go(path)
                    name = f"day-{path.strip('/') or 'overview'}-{scheme}-{size[0]}.png"
                    await shown.page.screenshot(path=folder / name)
                    assert await shown.overhang() == 0, (path, size)
                    assert await _names_its_page(shown), (path, size)
                    taken.append(folder / name)
                assert shown.problems == []
    return taken


async def _names_its_page(shown: Screen) -> bool:
    """Whether the page that is shown can be seen in the list of pages."""
    found: bool = await shown.page.evaluate(
        """() => {
            const one = document.querySelector("nav a[aria-current]").getBoundingClientRect();
            const all = document.querySelector("nav").getBoundingClientRect();
            return one.left >= all.left - 1 && one.right <= all.right + 1;
        }"""
    )
    return found
