"""The course of the demo: start the tiers, stream pictures, cut the cloud off, heal, sum up."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import structlog
from rich.console import Console
from rich.live import Live

from model_zoo.catalog import bundled_pictures, bundled_policy
from runtime.adapters.broker import Preference, RunningBroker, start_broker
from runtime.adapters.paho_bus import BrokerAddress, PahoBus
from runtime.adapters.policy_file import read_policy
from runtime.adapters.stalling_proxy import StallingProxy
from runtime.errors import StartError
from runtime.messages import Tier
from runtime.policy import Policy
from runtime.supervise import report
from tierwise.demo import plan
from tierwise.demo.baseline import labels_of
from tierwise.demo.next_steps import afterwards, called, meanwhile
from tierwise.demo.processes import Children, Roster
from tierwise.demo.rollout import run_rollout_demo
from tierwise.demo.tally import Seen, Summary, Tally
from tierwise.demo.traffic import Caller, Question, stream, uplink
from tierwise.demo.view import View

OUTAGE_S = 4.0
READY_S = 30.0
REFRESH_PER_S = 8
# Beyond these, the single tiers judge the rest after the stream, so that answers come at once.
JUDGED_FIRST = 1_000
INTERRUPTED = 130


@dataclass
class Stage:
    """What runs while the demo does."""

    broker: RunningBroker
    proxy: StallingProxy
    children: Children
    agent_bases: list[str]
    http_bases: dict[str, str] = field(default_factory=dict)


def main(arguments: argparse.Namespace) -> int:
    """Runs the demo; Ctrl-C stops every process that it started."""
    console = Console(stderr=arguments.json)
    folder = plan.state_folder(arguments.state)
    try:
        with (folder / plan.LOG_FILE).open("w") as log:
            # Nothing of this process's own log belongs between the lines of the view.
            structlog.configure(logger_factory=structlog.WriteLoggerFactory(log))
            return asyncio.run(_chosen(arguments, console, folder))
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running", style="yellow")
        return INTERRUPTED
    except StartError as error:
        report(error)
        return 3


async def _chosen(arguments: argparse.Namespace, console: Console, folder: Path) -> int:
    if arguments.rollout:
        return await run_rollout_demo(arguments, console, folder)
    return await _run(arguments, console, folder)


async def _run(arguments: argparse.Namespace, console: Console, folder: Path) -> int:
    began_s = time.monotonic()
    questions = _questions(arguments.requests, arguments.seed)
    view = View(console, arguments.agents)
    tally = view.tally = Tally(arguments.budget_ms)
    first = view.progress.add_task(
        "single tiers judge", total=2 * min(len(questions), JUDGED_FIRST)
    )
    live = Live(view, console=console, refresh_per_second=REFRESH_PER_S, transient=False)
    with live:
        await _judge(tally, questions[:JUDGED_FIRST], lambda n: view.progress.advance(first, n))
        async with _stage(arguments, folder, view) as stage:
            console.print(f"dashboard {plan.dashboard_of(folder)}", highlight=False, soft_wrap=True)
            first_answer_s = await _stream(arguments, stage, questions, view, began_s)
            uplink_bytes, num_sent = await uplink(stage.agent_bases)
            view.uplink_bytes = uplink_bytes
            await _judge(tally, questions[JUDGED_FIRST:], lambda _: None)
            view.note = "done"
            live.refresh()
            summary = tally.summary(
                uplink_bytes=uplink_bytes,
                num_sent=num_sent,
                first_answer_s=first_answer_s,
                state=str(folder),
                policy=_policy(),
                dashboard=plan.dashboard_of(folder),
            )
            live.stop()
            _finish(arguments, view, summary, folder)
            if arguments.keep:
                await _keep(console, stage, folder)
    return 0


def _questions(num_requests: int, seed: int) -> list[Question]:
    """A seeded order of the bundled test pictures; more requests than pictures go round again."""
    split = bundled_pictures("test")
    random = np.random.default_rng(seed)
    rounds = -(-num_requests // len(split.labels))
    order = np.concatenate([random.permutation(len(split.labels)) for _ in range(rounds)])
    return [
        Question(index, split.pictures[chosen], int(split.labels[chosen]))
        for index, chosen in enumerate(order[:num_requests])
    ]


def _policy() -> Policy | None:
    """The policy that the tiers of the demo follow."""
    path = bundled_policy()
    return None if path is None else read_policy(path).policy


async def _judge(tally: Tally, questions: list[Question], progress: Callable[[int], None]) -> None:
    if not questions:
        return
    tally.edge_only.update(await labels_of(Tier.EDGE, questions, progress))
    tally.cloud_only.update(await labels_of(Tier.CLOUD, questions, progress))


async def _broker(folder: Path, prefer: Preference) -> RunningBroker:
    """Starts the broker; Ctrl-C in the middle of that stops it again."""
    starting = asyncio.ensure_future(asyncio.to_thread(start_broker, folder, prefer=prefer))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        (await starting).stop()
        raise


@asynccontextmanager
async def _stage(arguments: argparse.Namespace, folder: Path, view: View) -> AsyncIterator[Stage]:
    """Broker, proxy, cloud, gateway and agents; all are gone afterwards, whatever happens."""
    view.note = "starting broker, cloud, gateway and agents"
    broker = await _broker(folder / "broker", arguments.broker)
    proxy = StallingProxy(broker.address.host, broker.address.port)
    children = Children(folder)
    bus = PahoBus(BrokerAddress(broker.address.host, broker.address.port), client_id="demo")
    try:
        link_port = await proxy.start()
        agents = plan.agent_names(arguments.agents)
        files = plan.write_settings(
            folder,
            agents,
            plan.Address(broker.address.host, broker.address.port),
            plan.Address("127.0.0.1", link_port),
            arguments.budget_ms,
        )
        roster = Roster(bus, (plan.REGION, plan.CLOUD_REGION))
        await bus.start()
        await children.start(plan.CLOUD, "cloud_tier", files[plan.CLOUD])
        await children.start(plan.GATEWAY, "regional_gateway", files[plan.GATEWAY])
        for agent in agents:
            await children.start(agent, "edge_agent", files[agent])
        await roster.wait_for(set(files), children, READY_S)
        yield Stage(
            broker,
            proxy,
            children,
            [roster.http_base(agent) for agent in agents],
            {name: roster.http_base(name) for name in files},
        )
    finally:
        await bus.close()
        await children.stop()
        await proxy.close()
        await asyncio.to_thread(broker.stop)


async def _stream(
    arguments: argparse.Namespace,
    stage: Stage,
    questions: list[Question],
    view: View,
    began_s: float,
) -> float:
    """Asks everything, with an outage in the middle; returns seconds from start to first answer."""
    tally = view.tally
    if tally is None:
        raise RuntimeError("the view has no tally")
    task = view.progress.add_task("pictures asked", total=len(questions))
    first_answer_s: list[float] = []

    def on_seen(seen: Seen) -> None:
        if not first_answer_s:
            first_answer_s.append(time.monotonic() - began_s)
        tally.add(seen)
        view.progress.advance(task)

    view.note = "streaming"
    length_s = len(questions) / arguments.rate
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, stage.agent_bases, arguments.budget_ms, lambda: view.is_cut)
        outage = asyncio.create_task(_outage(stage.proxy, view, length_s), name="outage")
        meter = asyncio.create_task(_meter(stage.agent_bases, view), name="meter")
        try:
            await stream(caller, questions, arguments.rate, on_seen)
            await outage
        finally:
            for helper in (outage, meter):
                helper.cancel()
            await asyncio.gather(outage, meter, return_exceptions=True)
    return first_answer_s[0] if first_answer_s else 0.0


async def _outage(proxy: StallingProxy, view: View, length_s: float) -> None:
    """Stalls the link to the cloud in the middle of the stream, and heals it."""
    cut_s = min(OUTAGE_S, length_s / 5)
    await asyncio.sleep((length_s - cut_s) / 2)
    proxy.cut()
    view.is_cut, view.note = True, "the link to the cloud is cut: answers go on, marked degraded"
    try:
        await asyncio.sleep(cut_s)
    finally:
        proxy.heal()
        view.is_cut, view.note = False, "the link is healed"


async def _meter(agent_bases: list[str], view: View) -> None:
    """Keeps the bytes sent up current in the view."""
    while True:
        view.uplink_bytes, _ = await uplink(agent_bases)
        await asyncio.sleep(1.0)


def _finish(arguments: argparse.Namespace, view: View, summary: Summary, folder: Path) -> None:
    if arguments.json:
        print(json.dumps(summary), file=sys.stdout, flush=True)  # noqa: T201 the product
        return
    if not view.console.is_terminal:
        # Without a terminal the last picture ends within its line.
        view.console.line()
    view.summary(summary)
    where = f"\nLogs and decisions are kept in {folder}"
    view.console.print(where, highlight=False, markup=False, soft_wrap=True)
    if not arguments.keep:
        _suggest(view.console, "Try next:", afterwards(called(), folder))


def _suggest(console: Console, head: str, commands: list[str]) -> None:
    console.print(head)
    for command in commands:
        console.print(f"  {command}", style="bold", highlight=False, markup=False, soft_wrap=True)


async def _keep(console: Console, stage: Stage, folder: Path) -> None:
    """Leaves everything running until Ctrl-C."""
    broker = f"{stage.broker.address.host}:{stage.broker.address.port}"
    console.print(f"\ndashboard {plan.dashboard_of(folder)}", highlight=False, soft_wrap=True)
    console.print(f"broker    mqtt://{broker}")
    for name, base in sorted(stage.http_bases.items()):
        console.print(f"{name:9} {base}/metrics", highlight=False)
    file = plan.operator_file(folder)
    head = "\nTry next, from another terminal:"
    _suggest(console, head, meanwhile(called(), folder, file, stage.agent_bases[0], broker))
    console.print("\nCtrl-C stops everything.")
    await asyncio.Event().wait()
