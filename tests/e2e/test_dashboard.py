"""The dashboard in a real browser, over a real hierarchy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from cloud_tier.operators.access import FILE_NAME, read_operator_file
from fakes.browser import NARROW, SCHEMES, WIDE, Screen, access, pictures_in, screen
from fakes.dashboard import NOW_S, dashboard_port
from fakes.programs import UNSURE, Asker, TierProgram
from fakes.rollout_cloud import rolling_cloud
from fakes.waiting import eventually, until
from runtime.messages import Birth, Offline, Tier

pytestmark = pytest.mark.timeout(120)
PAGES = ("/", "/escalations", "/fleet", "/rollouts", "/drift", "/control", "/audit")
Tiers = tuple[TierProgram, TierProgram, TierProgram]


@pytest.fixture
async def tiers(hierarchy: Any, asker: Asker, tmp_path: Path) -> Tiers:
    """An agent and a gateway that are never sure, and a cloud that reads the logs of all."""
    hierarchy.broker()
    cloud = hierarchy.tier("cloud", "cloud-1", f"operators.decision_logs={tmp_path}")
    gateway = hierarchy.tier("gateway", "gateway-1", UNSURE)
    agent = hierarchy.tier("edge", "agent-1", UNSURE)
    await asker.ready(cloud, gateway, agent)
    return agent, gateway, cloud


@pytest.fixture
async def shown(browser: Browser, tiers: Tiers) -> AsyncIterator[Screen]:
    async with screen(browser, *access(tiers[2])) as shown:
        yield shown
        assert shown.problems == []


async def test_who_has_the_token_watches_the_hierarchy_live(
    shown: Screen, tiers: Tiers, asker: Asker
) -> None:
    agent, _, _ = tiers
    assert "token" not in await shown.page.evaluate("location.href + JSON.stringify(history.state)")
    await shown.says("1 of 1")
    tile = shown.page.locator("a.tile")
    label = await tile.get_attribute("aria-label")
    assert label == "plant: 1 devices, all there, link up"
    assert await shown.page.locator(".dot-on").count() == 2
    await shown.says("None yet")

    await asker.answered_by(agent, "cloud")

    await shown.page.wait_for_selector(".lines a[href*='id=']")
    await shown.page.wait_for_selector(".tile rect.fill-cloud", state="attached")
    agent.kill()
    await shown.page.wait_for_selector(".tile .dot-off", state="attached")
    await shown.says("0 of 1")
    label = await tile.get_attribute("aria-label")
    assert label == "plant: 1 devices, 1 away, link up"


async def test_an_escalation_is_explained_as_a_story(
    shown: Screen, tiers: Tiers, asker: Asker
) -> None:
    answer = await asker.answered_by(tiers[0], "cloud")

    await shown.go("/escalations?action=escalate")
    await until(lambda: _reloaded(shown), lambda text: "decisions of tiers" in text)
    await shown.page.get_by_role("link", name="unsure").first.click()
    await shown.says("reason: unsure")
    assert "reason=unsure" in shown.page.url
    rows = shown.page.locator("table a[href*='id=']")
    await rows.first.click()
    await shown.page.wait_for_selector(".hops")

    hops = await shown.page.locator(".hop h3").all_inner_texts()
    assert [one.split()[0] for one in hops] == ["edge", "regional", "cloud"]
    text = await shown.text()
    assert "In the end: " in text
    assert "agent-1" in text
    assert len(answer["provenance"]) == 3


async def _reloaded(shown: Screen) -> str:
    await shown.page.reload()
    await shown.settled()
    return await shown.text()


async def _fill(shown: Screen, **values: str) -> None:
    for name, value in values.items():
        await shown.page.fill(f"dialog [name={name}]", value)


async def test_a_region_is_stopped_and_resumed_with_the_keyboard_alone(
    shown: Screen, tiers: Tiers, asker: Asker
) -> None:
    agent, _, _ = tiers
    await asker.answered_by(agent, "cloud")
    keyboard = shown.page.keyboard
    # The first stop of the tabulator leads past the pages.
    await keyboard.press("Tab")
    assert await _focused(shown) == "Skip to content"
    for _ in range(20):
        await keyboard.press("Tab")
        if await _focused(shown) == "Control":
            break
    await keyboard.press("Enter")
    await shown.says("Nothing is stopped.")
    assert await shown.page.evaluate("document.activeElement.id") == "main"
    await keyboard.press("Tab")
    assert await _focused(shown) == "Stop …"
    await keyboard.press("Enter")
    await shown.page.wait_for_selector("dialog[open]")
    send = shown.page.locator("dialog button[type=submit]")
    await keyboard.press("Tab")
    await keyboard.press("Tab")
    await keyboard.press("Tab")
    await keyboard.type("sto")
    assert await send.is_disabled()
    await keyboard.type("p")
    await keyboard.press("Tab")
    await keyboard.type("the lamp is broken")
    await keyboard.press("Tab")
    await keyboard.type("Ada")
    await keyboard.press("Enter")

    await shown.says("Done. cloud: known to")
    await shown.says("Ada: the lamp is broken")
    answer = await asker.infer(agent)
    assert (answer["outcome"], answer["reason"]) == ("abstained", "stopped")
    assert "the lamp is broken" in answer["notice"]

    await shown.page.get_by_role("button", name="Resume").click()
    await _fill(shown, confirm="resume", why="a new lamp")
    await shown.page.click("dialog button[type=submit]")
    await shown.says("Nothing is stopped.")
    await asker.answered_by(agent, "cloud")
    await shown.go("/audit")
    text = await shown.text()
    assert "stop of all by Ada" in text
    assert "a new lamp" in text
    assert text.count("(browser)") == 2


async def _focused(shown: Screen) -> str:
    found: str = await shown.page.evaluate("document.activeElement.innerText || ''")
    return found.strip()


async def test_an_override_changes_answers_until_it_is_removed(
    shown: Screen, tiers: Tiers, asker: Asker
) -> None:
    agent, _, _ = tiers
    await shown.go("/control")
    await shown.page.get_by_role("button", name="Override").click()
    await shown.page.select_option("dialog select >> nth=0", "pin")
    await shown.page.select_option("dialog [name=scope]", "all")
    await _fill(shown, answer="Coat", lasts="an hour", why="coats today", by="Ada")
    await shown.page.click("dialog button[type=submit]")
    await shown.says("How long is a number with m, h or d")
    await _fill(shown, lasts="1h")
    await shown.page.click("dialog button[type=submit]")
    await shown.says("answers Coat")
    answer = await asker.infer(agent)
    assert "answers Coat" in answer["notice"]

    await shown.page.get_by_role("button", name="Remove").click()
    await _fill(shown, why="tea time")
    await shown.page.click("dialog button[type=submit]")
    await shown.says("No answer is overridden.")

    assert "notice" not in await asker.infer(agent)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_every_page_fits_and_nothing_is_complained_of(
    browser: Browser, tiers: Tiers, asker: Asker, tmp_path: Path, size: Any, scheme: Any
) -> None:
    await asker.answered_by(tiers[0], "cloud")
    folder = pictures_in(tmp_path)
    async with screen(browser, *access(tiers[2]), size, scheme) as shown:
        await shown.page.wait_for_selector(".lines a[href*='id=']")
        for path in PAGES:
            await shown.go(path)
            name = f"{path.strip('/') or 'overview'}-{scheme}-{size[0]}.png"
            await shown.page.screenshot(path=folder / name)
            assert await shown.overhang() == 0, path
            assert (await shown.page.title()).endswith("Tierwise")
        assert shown.problems == []
    assert len(list(folder.glob(f"*-{scheme}-{size[0]}.png"))) == len(PAGES)


async def test_without_telemetry_the_page_of_reviews_says_what_is_missing(
    browser: Browser, hierarchy: Any, asker: Asker
) -> None:
    hierarchy.broker()
    cloud = hierarchy.tier("cloud", "cloud-1", "telemetry.enabled=false")
    await asker.ready(cloud)

    async with screen(browser, *access(cloud)) as shown:
        await shown.go("/review")
        await shown.page.wait_for_selector("text=Nobody can label here")
        assert await shown.page.get_by_role("button", name="Begin").count() == 0
        assert shown.problems == []


async def test_what_is_out_of_service_is_drawn_only_where_it_speaks(
    browser: Browser, tmp_path: Path
) -> None:
    async with dashboard_port(tmp_path) as port:
        found, fleet = read_operator_file(tmp_path / FILE_NAME), port.view.fleet
        assert found is not None
        for region, name in (("far", "cam-1"), ("far", "cam-2"), ("gone", "cam-3")):
            said = Birth(Tier.EDGE, name, region, 7)
            fleet.take(region, name, said, NOW_S, is_agent=True)
        here = asyncio.create_task(port.live.run())
        async with screen(browser, port.url, found.token) as shown:
            tiles = shown.page.locator("a.tile")
            await shown.page.wait_for_selector("a.tile[href*=gone]", state="attached")
            for region, name in (("far", "cam-1"), ("gone", "cam-3")):
                gone = Offline(Tier.EDGE, name, region, 7)
                fleet.take(region, name, gone, NOW_S, is_agent=True)
            cameras = (("far", "cam-1"), ("far", "cam-2"), ("gone", "cam-3"))
            fleet.retire(dict.fromkeys(cameras, NOW_S))
            await shown.page.wait_for_selector("a.tile[href*=gone]", state="detached")
            labels = [await one.get_attribute("aria-label") or "" for one in await tiles.all()]
            await shown.go("/fleet")
            text = await shown.text()
            assert shown.problems == []
        here.cancel()

    assert [one.partition(",")[0] for one in labels] == ["far: 1 devices", "r: 1 devices"]
    assert "2 devices in 3 regions, 0 away" in text
    assert "online, retired, yet it speaks" in text
    assert "cam-1" not in text


async def test_who_is_logged_out_is_asked_for_the_token(browser: Browser, tiers: Tiers) -> None:
    url, token = access(tiers[2])
    async with screen(browser, url, token) as shown:
        await shown.page.get_by_role("button", name="Log out").click()
        await shown.page.wait_for_selector("#token")
        await shown.page.fill("#token", "wrong")
        await shown.page.keyboard.press("Enter")
        await shown.says("this is not the token")
        await shown.page.fill("#token", token)
        await shown.page.keyboard.press("Enter")
        await shown.page.wait_for_selector("header")


async def test_a_rollout_is_started_and_aborted(
    browser: Browser, hierarchy: Any, asker: Asker, tmp_path: Path
) -> None:
    async with (
        rolling_cloud(hierarchy, asker, tmp_path) as (program, devices),
        screen(browser, *access(program)) as shown,
    ):
        await eventually(lambda: devices.all[0].number >= 4, 60)
        await shown.go("/rollouts")
        await shown.says("There is no rollout yet.")
        await shown.page.get_by_role("button", name="Start a rollout").click()
        await _fill(shown, model="m", shares="20, 100", why="better", by="Ada")
        await shown.page.check("dialog [name=no_shadow]")
        await shown.page.click("dialog button[type=submit]")
        await shown.page.wait_for_selector("h2:has-text('Waves')")
        await shown.says("canary")
        await shown.page.get_by_role("button", name="Abort").click()
        await _fill(shown, confirm="m", why="worse")
        await shown.page.click("dialog button[type=submit]")

        await shown.says("aborted")
        await asyncio.to_thread(program.state.stat)
        await shown.go("/audit")
        text = await shown.text()
        assert "rollout start" in text
        assert "rollout abort" in text
        assert shown.problems == []
