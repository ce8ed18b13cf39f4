"""``tierwise demo --rollout``: a good model reaches the whole fleet, a quietly worse one goes back.

Real keys, a real repository, and the service, mirror and updaters that a fleet has; agents are
asked about pictures all the while, and nobody's request may fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live

from model_zoo.catalog import bundled_pictures
from tierwise.cloud_client import CloudClient
from tierwise.demo import plan, rollout_plan
from tierwise.demo.rollout_stage import RolloutStage, rollout_stage
from tierwise.demo.rollout_view import RolloutView
from tierwise.demo.tally import Seen
from tierwise.demo.traffic import Caller, Question
from tierwise.demo.variations import AS_GOOD, QUIETLY_WORSE, Variation
from tierwise.operator_access import client_in

NUM_AGENTS = 16
RATE_PER_S = 100.0
LIMIT_S = 240.0
REFRESH_PER_S = 4
DOWNLOADED = "tierwise_edge_update_downloaded_bytes_total"
_BY = "demo"


class Rolled(TypedDict):
    """What became of a version; ``took_s`` from its start to its end."""

    version: int
    phase: str
    why: str
    took_s: float
    ever_ran: int
    of: int
    stages: list[str]


class RolloutSummary(TypedDict):
    """The result of the demo; keys only grow."""

    requests: int
    failed: int
    late: int
    good: Rolled
    worse: Rolled
    downloaded_bytes: int
    state: str


@dataclass
class Load:
    """Asks agents about pictures until cancelled, and counts."""

    stage: RolloutStage
    budget_ms: float
    per_s: float
    requests: int = 0
    failed: int = 0
    late: int = 0
    _asked: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Asks at a steady rate, whether or not earlier answers are back."""
        split = bundled_pictures("test")
        order = np.random.default_rng(1).permutation(len(split.labels))
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session:
            caller = Caller(session, self.stage.agent_urls, self.budget_ms, lambda: False)
            began_s = loop.time()
            try:
                for number in range(sys.maxsize):
                    await asyncio.sleep(max(0.0, began_s + number / self.per_s - loop.time()))
                    chosen = order[number % len(order)]
                    question = Question(number, split.pictures[chosen], int(split.labels[chosen]))
                    task = asyncio.create_task(self._ask(caller, question))
                    self._asked.add(task)
                    task.add_done_callback(self._asked.discard)
            finally:
                # What was asked is to be answered: an end of ours is nobody's failure.
                await asyncio.gather(*self._asked)

    async def _ask(self, caller: Caller, question: Question) -> None:
        seen: Seen = await caller.ask(question)
        self.requests += 1
        self.failed += seen.outcome not in ("answered", "degraded")
        self.late += seen.latency_ms > self.budget_ms


async def run_rollout_demo(arguments: argparse.Namespace, console: Console, folder: Path) -> int:
    """Runs it; 0 when both ended as they should, and no request failed.

    Raises:
        StartError: something could not start.
    """
    agents = plan.agent_names(max(arguments.agents, NUM_AGENTS))
    view = RolloutView(len(agents))
    live = Live(view, console=console, refresh_per_second=REFRESH_PER_S)
    with live:
        async with rollout_stage(
            folder,
            agents,
            prefer=arguments.broker,
            budget_ms=arguments.budget_ms,
            note=view.say,
        ) as stage:
            load = view.load = Load(stage, arguments.budget_ms, max(arguments.rate, RATE_PER_S))
            asking = asyncio.create_task(load.run(), name="load")
            try:
                view.say(f"watching the fleet as it is, {rollout_plan.BASELINE_S:g} s")
                await asyncio.sleep(rollout_plan.BASELINE_S)
                async with client_in(stage.cloud_state) as client:
                    good = await _roll_out(client, AS_GOOD, view, "as good as the one before")
                    view.say(f"watching the fleet again, {rollout_plan.BASELINE_S:g} s")
                    await asyncio.sleep(rollout_plan.BASELINE_S)
                    worse = await _roll_out(
                        client,
                        QUIETLY_WORSE,
                        view,
                        "somebody was in a hurry: no shadow",
                        in_shadow_first=False,
                    )
                downloaded = await _downloaded_bytes(stage)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
        view.say("done")
    summary = RolloutSummary(
        requests=load.requests,
        failed=load.failed,
        late=load.late,
        good=good,
        worse=worse,
        downloaded_bytes=downloaded,
        state=str(folder),
    )
    if arguments.json:
        print(json.dumps(summary), flush=True)  # noqa: T201 the product
    else:
        _tell(console, summary)
    is_right = good["phase"] == "done" and worse["phase"] == "rolled_back"
    return 0 if is_right and not load.failed else 1


async def _roll_out(
    client: CloudClient,
    variation: Variation,
    view: RolloutView,
    why: str,
    *,
    in_shadow_first: bool = True,
) -> Rolled:
    """Starts a rollout and follows it to its end."""
    rollout_id = f"{rollout_plan.MODEL}-{variation.version}"
    asked = {
        "model": rollout_plan.MODEL,
        "version": variation.version,
        "id": rollout_id,
        "by": _BY,
        "why": why,
        "settings": rollout_plan.ROLLOUT | ({} if in_shadow_first else {"shadow": None}),
    }
    began_s = time.monotonic()
    view.begin(f"version {variation.version}: {why}")
    status = await client.post("/rollouts", asked)
    stages: list[str] = []
    reason = ""
    with suppress(TimeoutError):
        async with asyncio.timeout(LIMIT_S):
            async for name, value in client.events(f"/rollouts/{rollout_id}/events"):
                if name == "status":
                    status = value
                    view.show(status)
                elif name == "audit" and not value["device"]:
                    stages.append(str(value["now"]))
                    reason = str(value["why"])
                    view.happened(value)
                if status["asked"]:
                    # Nobody is here to decide; a fleet's operator would look, and promote it.
                    break
    ran = status["blast_radius"]
    return Rolled(
        version=variation.version,
        phase=status["phase"],
        why=status["asked"] or reason,
        took_s=round(time.monotonic() - began_s, 1),
        ever_ran=ran["num"],
        of=ran["of"],
        stages=stages,
    )


async def _downloaded_bytes(stage: RolloutStage) -> int:
    total = 0.0
    async with aiohttp.ClientSession() as session:
        for url in stage.agent_urls:
            async with session.get(f"{url}/metrics") as response:
                text = await response.text()
            for family in text_string_to_metric_families(text):
                total += sum(one.value for one in family.samples if one.name == DOWNLOADED)
    return round(total)


def _tell(console: Console, summary: RolloutSummary) -> None:
    for title, one in (("as good", summary["good"]), ("quietly worse", summary["worse"])):
        console.print(
            f"[bold]version {one['version']}[/], {title}: {one['phase'].replace('_', ' ')} after "
            f"{one['took_s']:g} s; it ever ran on {one['ever_ran']} of {one['of']} devices",
            highlight=False,
        )
        console.print(f"  {one['why']}", highlight=False, style="dim")
    console.print(
        f"{summary['requests']} requests meanwhile, {summary['failed']} failed, {summary['late']} "
        f"late; devices downloaded {summary['downloaded_bytes']:,} bytes\n\nLogs, keys and the "
        f"repository are kept in {summary['state']}",
        highlight=False,
    )
