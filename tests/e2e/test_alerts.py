"""Alerts of a real cloud tier over a real broker: a test reaches every sink, and facts arrive."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.async_api import Browser

from fakes.browser import access, screen
from fakes.programs import Asker
from fakes.waiting import eventually
from fakes.webhooks import receiving
from runtime import topics
from runtime.adapters.paho_bus import PahoBus
from runtime.alert_facts import AlertFacts, Sign
from runtime.messages import ItemKind
from runtime.ports import Message
from tierwise.cli import main

pytestmark = pytest.mark.timeout(120)


async def test_what_a_device_tells_reaches_the_webhook_the_broker_and_the_dashboard(
    hierarchy: Any, asker: Asker, browser: Browser, tmp_path: Path
) -> None:
    hierarchy.broker()
    async with receiving() as receiver, AsyncExitStack() as stack:
        flags = (
            f"alerts.webhook_urls={receiver.url}",
            "alerts.pending_for_s=0",
            "alerts.clear_for_s=0",
            "alerts.interval_s=0.1",
        )
        cloud = hierarchy.tier("cloud", "cloud-1", *flags)
        await asker.ready(cloud)
        heard: list[Message] = []
        device = PahoBus(hierarchy.address, client_id="camera-1")
        device.subscribe(topics.alert("cloud", "drift.cloud.camera-1"), heard.append, qos=1)
        await device.start()
        assert await device.wait_connected(20)

        async def say(item: str, *signs: Sign) -> None:
            message = Message(
                topic=topics.up("cloud", "camera-1"),
                payload=msgspec.json.encode(AlertFacts(signs)),
                qos=1,
                content_type="application/json",
                user=(
                    (topics.ITEM, item),
                    (topics.KIND, ItemKind.ALERT.value),
                    (topics.AGE_MS, "0"),
                ),
            )
            device.publish(message)

        await say("first", Sign("drift", "scores are others"))
        await eventually(lambda: heard and receiver.said, 20.0)
        shown = await stack.enter_async_context(screen(browser, *access(cloud)))
        await shown.says("cloud camera-1 scores are others")
        await shown.page.wait_for_selector(".big.problem:has-text('1alert')")
        await shown.page.screenshot(path=tmp_path / "alerts.png", full_page=True)
        await shown.says("label some of it and fit the policy again: tierwise policy fit")
        await say("second")
        await shown.says("Nothing is wrong.")
        await eventually(lambda: len(receiver.said) == 2, 20.0)
        await eventually(lambda: not heard[-1].payload, 20.0)
        words = ["alerts", "test", "--operator", cloud.operator_file]
        code = await asyncio.to_thread(main, words)
        await device.close()

    assert code == 0
    assert receiver.kinds == ["firing", "recovered", "firing"]
    assert [one["test"] for one in receiver.said] == [False, False, True]
    assert receiver.said[0]["summary"] == "scores are others"
