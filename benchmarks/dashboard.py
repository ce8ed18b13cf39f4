"""How quick the operators' dashboard is with many devices.

    python benchmarks/dashboard.py [--devices 10000] [--regions 20] [--seconds 20] [--json]

Starts a broker, retains the births of so many devices and of a gateway a region, starts a cloud
tier beside it as a process, and opens the dashboard in Chromium: how long until something is
painted, and until the whole fleet is in the picture. Then five times a second fifty devices go or
come, and the longest gaps between two frames of the browser are measured. Needs `chromium` and the
Python package `playwright`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

from cloud_tier.operators.access import FILE_NAME, OperatorFile, read_operator_file
from runtime import topics
from runtime.adapters.broker import start_broker
from runtime.adapters.dial import BrokerAddress
from runtime.adapters.paho_bus import PahoBus
from runtime.errors import NotConnectedError, StartError
from runtime.messages import Birth, ControlMessage, Offline, ServedModel, Tier, encode_control
from runtime.ports import Message

LOADS, UPDATES_A_S, FLIPS, READY_S = 5, 5, 50, 60.0
_GAPS = """() => {
  window.gaps = [];
  let last = performance.now();
  const look = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(look); };
  requestAnimationFrame((now) => { last = now; requestAnimationFrame(look); });
}"""
_THERE = """wanted => {
  const found = /([0-9,]+) of ([0-9,]+)/.exec(document.body.innerText);
  return found && Number(found[2].replaceAll(",", "")) === wanted;
}"""


def said(message: ControlMessage, tier: Tier, region: str, site: str) -> Message:
    """A retained state at its topic."""
    name = topics.agent_state if tier is Tier.EDGE else topics.gateway_state
    return Message(name(region, site), encode_control(message), qos=1, retain=True)


def birth(tier: Tier, region: str, site: str, epoch: int = 1) -> Message:
    """A process that is online."""
    models = (ServedModel("fashion", str(1 + epoch % 2)),)
    return said(Birth(tier, site, region, epoch, models=models), tier, region, site)


async def publish(bus: PahoBus, message: Message) -> None:
    """Sends it as soon as there is room for it."""
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            bus.publish(message)
        except NotConnectedError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.01)
        else:
            return


def cloud(folder: Path, address: BrokerAddress) -> subprocess.Popen[bytes]:
    """A cloud tier as a process."""
    settings = folder / "cloud.toml"
    settings.write_text(
        f'cloud = "cloud-1"\n[broker]\nport = {address.port}\n[http]\nport = 0\n'
        f'[operators]\nport = 0\n[state]\nfolder = "{folder / "cloud-1"}"\n'
    )
    with (folder / "cloud.log").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 our own program
            [sys.executable, "-m", "cloud_tier", "--config", str(settings),
             "--die-with-parent", str(os.getpid())],
            stdout=log, stderr=log,
        )  # fmt: skip


async def access(folder: Path) -> OperatorFile:
    """Where the dashboard is, as soon as it is said."""
    deadline_s = time.monotonic() + READY_S
    while (found := read_operator_file(folder / "cloud-1" / FILE_NAME)) is None:
        if time.monotonic() > deadline_s:
            raise StartError(f"the cloud tier has not started: see {folder / 'cloud.log'}")
        await asyncio.sleep(0.05)
    return found


async def loads(page: Page, url: str, token: str, num: int) -> dict[str, float]:
    """One load: first contentful paint, and the whole fleet in the picture, in ms."""
    await page.goto(f"{url}/#token={token}")
    await page.wait_for_function(_THERE, arg=num, timeout=1000 * READY_S)
    whole = await page.evaluate("performance.now()")
    await page.wait_for_function(
        "() => performance.getEntriesByName('first-contentful-paint').length > 0"
    )
    painted = await page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    return {"first_contentful_paint_ms": painted, "whole_ms": whole}


async def flip(bus: PahoBus, sites: list[tuple[str, str]], seconds: float) -> int:
    """Devices go and come, five times a second; returns how many states were sent."""
    random_ = random.Random(1)  # noqa: S311 no secret
    loop, sent, epoch = asyncio.get_running_loop(), 0, 1
    start_s = loop.time()
    for turn in range(int(seconds * UPDATES_A_S)):
        epoch += 1
        for region, site in random_.sample(sites, min(FLIPS, len(sites))):
            gone = said(Offline(Tier.EDGE, site, region, epoch), Tier.EDGE, region, site)
            await publish(bus, gone if turn % 2 else birth(Tier.EDGE, region, site, epoch))
            sent += 1
        await asyncio.sleep(max(0.0, start_s + (turn + 1) / UPDATES_A_S - loop.time()))
    return sent


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    program = shutil.which("chromium")
    if program is None:
        raise StartError("no chromium: apt-get install chromium")
    broker = await asyncio.to_thread(start_broker, folder / "broker")
    bus = PahoBus(broker.address, client_id="devices")
    process: subprocess.Popen[bytes] | None = None
    try:
        await bus.start()
        await bus.wait_connected(READY_S)
        names = [f"region-{one:03}" for one in range(arguments.regions)]
        sites = [(names[one % len(names)], f"device-{one:05}") for one in range(arguments.devices)]
        for region in names:
            await publish(bus, birth(Tier.REGIONAL, region, "gateway-1"))
        for region, site in sites:
            await publish(bus, birth(Tier.EDGE, region, site))
        process = cloud(folder, broker.address)
        return await _measured(bus, await access(folder), sites, arguments, program)
    finally:
        await bus.close()
        if process is not None:
            process.terminate()
            process.wait(20)
        await asyncio.to_thread(broker.stop)


async def _measured(
    bus: PahoBus,
    found: OperatorFile,
    sites: list[tuple[str, str]],
    arguments: argparse.Namespace,
    program: str,
) -> dict[str, Any]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        times = []
        for _ in range(LOADS):
            context = await browser.new_context(viewport={"width": 1280, "height": 800})
            page = await context.new_page()
            times.append(await loads(page, found.url, found.token, len(sites)))
            if len(times) < LOADS:
                await context.close()
        await page.evaluate(_GAPS)
        sent = await flip(bus, sites, arguments.seconds)
        gaps = sorted(await page.evaluate("window.gaps"))
        if arguments.picture:
            await page.screenshot(path=arguments.picture, full_page=True)
        await browser.close()
    paints = sorted(one["first_contentful_paint_ms"] for one in times)
    wholes = sorted(one["whole_ms"] for one in times)
    return {
        "devices": arguments.devices,
        "regions": arguments.regions,
        "loads": LOADS,
        "first_contentful_paint_ms": {"median": paints[LOADS // 2], "max": paints[-1]},
        "whole_fleet_ms": {"median": wholes[LOADS // 2], "max": wholes[-1]},
        "states_sent": sent,
        "frames": len(gaps),
        "frame_gap_ms": {
            "p50": gaps[len(gaps) // 2],
            "p99": gaps[int(len(gaps) * 0.99)],
            "max": gaps[-1],
        },
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--regions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--picture", type=Path, help="a PNG of the page afterwards")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(arguments, Path(folder)))
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        numbers = value.items() if isinstance(value, dict) else (("", value),)
        print(f"{name:28}", "  ".join(f"{key} {one:,.0f}".strip() for key, one in numbers))


if __name__ == "__main__":
    main()
