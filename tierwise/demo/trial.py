"""Tries a task's models: broker and three tiers on this machine, asked about labelled examples.

The ``run.py`` of an example calls ``main``. The tiers are started as an operator starts them, with
the settings files of the example; places that are only of this run (ports, broker, state) are set
over them. Says who answered how much, how right that was beside each tier alone, and how fast.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import structlog

from model_zoo.policies.collect import Examples, collect, read_examples
from runtime.adapters.artifacts import open_model
from runtime.adapters.broker import start_broker
from runtime.adapters.paho_bus import BrokerAddress, PahoBus
from runtime.adapters.policy_file import read_policy
from runtime.errors import StartError, TierwiseError
from runtime.messages import USUAL_TIERS, Tensors, Tier
from tierwise.demo import plan
from tierwise.demo.processes import Children, Roster
from tierwise.demo.tally import TIERS, Summary, Tally
from tierwise.demo.traffic import Caller, stream, uplink

READY_S = 30.0
BAR_WIDTH = 40
_AGENT = "device-1"
_PROGRAMS = {
    Tier.EDGE: ("edge.toml", "edge_agent", _AGENT),
    Tier.REGIONAL: ("gateway.toml", "regional_gateway", plan.GATEWAY),
    Tier.CLOUD: ("cloud.toml", "cloud_tier", plan.CLOUD),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled example of many; nothing is copied before it is asked about."""

    index: int
    examples: Examples

    @property
    def truth(self) -> int:
        """The class index that is right."""
        return int(self.examples.labels[self.index])

    def inputs(self) -> Tensors:
        """Its tensors, a batch of one."""
        return {
            name: values[self.index : self.index + 1]
            for name, values in self.examples.inputs.items()
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """What to try: folders of models and settings, a policy or none, and what to ask, how fast."""

    models: Path
    policy: Path | None
    settings: Path
    data: Path
    requests: int
    per_s: float
    budget_ms: float
    state: Path


def main(words: Sequence[str], folder: Path) -> int:
    """Runs a trial of the example in ``folder``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python run.py", description="Start broker and three tiers, ask about the test part."
    )
    parser.add_argument("--build", type=Path, default=folder / "build", help="of prepare and train")
    parser.add_argument("--settings", type=Path, default=folder / "settings")
    parser.add_argument("--requests", type=int, default=2000, metavar="N", help="at most")
    parser.add_argument("--rate", type=float, default=60.0, metavar="PER_S")
    parser.add_argument("--budget-ms", type=float, default=150.0, metavar="MS")
    parser.add_argument("--state", type=Path, help="folder for logs (default: a new one in /tmp)")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object")
    options = parser.parse_args(words)
    policy = options.build / "policy.json"
    try:
        state = options.state or Path(tempfile.mkdtemp(prefix="tierwise-trial-"))
        state.mkdir(parents=True, exist_ok=True)
        trial = Trial(
            models=options.build / "models",
            policy=policy if policy.is_file() else None,
            settings=options.settings,
            data=options.build / "data" / "test.npz",
            requests=options.requests,
            per_s=options.rate,
            budget_ms=options.budget_ms,
            state=state.resolve(),
        )
        with (state / "trial.log").open("w") as log:
            structlog.configure(logger_factory=structlog.WriteLoggerFactory(log))
            summary = asyncio.run(run_trial(trial))
    except (TierwiseError, OSError) as error:
        parser.exit(3, f"run: {error}\n")
    print(json.dumps(summary, indent=2) if options.json else in_words(summary))  # noqa: T201
    return 0


async def run_trial(trial: Trial) -> Summary:
    """Starts everything, asks, stops everything; the figures.

    Raises:
        StartError: a broker, a tier or a file of settings is missing.
        ArtifactError: a model folder cannot be used.
        PolicyError: the policy or the examples do not fit the models.
    """
    if trial.requests < 1 or not 0 < trial.per_s < float("inf"):
        raise StartError(f"{trial.requests} requests, {trial.per_s:g} a second: nothing to ask")
    name = open_model(trial.models / Tier.EDGE).manifest.name
    examples = read_examples(str(trial.data)).part(0, trial.requests)
    policy = None if trial.policy is None else read_policy(trial.policy).policy
    tally = Tally(trial.budget_ms)
    both = {tier.value: trial.models / tier for tier in (Tier.EDGE, Tier.CLOUD)}
    alone = collect(both, examples, dict.fromkeys(both, 1.0)).predicted.tolist()
    tally.edge_only.update(enumerate(alone[0]))
    tally.cloud_only.update(enumerate(alone[1]))
    began_s = time.monotonic()
    async with _tiers(trial) as base, aiohttp.ClientSession() as session:
        ready_s = time.monotonic() - began_s
        caller = Caller(session, [base], trial.budget_ms, lambda: False, name)
        rows = [Row(index, examples) for index in range(len(examples.labels))]
        await stream(caller, rows, trial.per_s, tally.add)
        num_bytes, num_sent = await uplink([base])
    return tally.summary(
        uplink_bytes=num_bytes,
        num_sent=num_sent,
        first_answer_s=ready_s,
        state=str(trial.state),
        policy=policy,
    )


@asynccontextmanager
async def _tiers(trial: Trial) -> AsyncIterator[str]:
    """Broker and tiers; the address of the agent. All are gone afterwards, whatever happens."""
    missing = [one for one, _, _ in _PROGRAMS.values() if not (trial.settings / one).is_file()]
    if missing:
        raise StartError(f"{trial.settings} has no {', '.join(missing)}")
    broker = await asyncio.to_thread(start_broker, trial.state / "broker")
    at = broker.address
    children = Children(trial.state)
    bus = PahoBus(BrokerAddress(at.host, at.port), client_id="trial")
    try:
        roster = Roster(bus, (plan.REGION, plan.CLOUD_REGION))
        await bus.start()
        for tier in reversed(USUAL_TIERS):
            file, module, site = _PROGRAMS[tier]
            flags = settings_over(trial, tier, at.host, at.port)
            await children.start(site, module, trial.settings / file, flags)
        sites = {site for _, _, site in _PROGRAMS.values()}
        await roster.wait_for(sites, children, READY_S)
        yield roster.http_base(_AGENT)
    finally:
        await bus.close()
        await children.stop()
        await asyncio.to_thread(broker.stop)


def settings_over(trial: Trial, tier: Tier, host: str, port: int) -> list[str]:
    """The settings of a tier that are only of this run, as ``--set`` takes them."""
    site = _PROGRAMS[tier][2]
    flags = [
        f"model.folder={(trial.models / tier).resolve()}",
        f"escalation.policy={trial.policy.resolve() if trial.policy else ''}",
        f"broker.host={host}",
        f"broker.port={port}",
        "http.port=0",
        f"state.folder={trial.state / site}",
    ]
    match tier:
        case Tier.EDGE:
            return [*flags, f"agent={site}", f"region={plan.REGION}"]
        case Tier.REGIONAL:
            return [
                *flags,
                f"gateway={site}",
                f"region={plan.REGION}",
                f"upstream.region={plan.CLOUD_REGION}",
                f"upstream.broker.host={host}",
                f"upstream.broker.port={port}",
            ]
        case _:
            return [*flags, f"cloud={site}", f"region={plan.CLOUD_REGION}"]


def in_words(summary: Summary) -> str:
    """The figures for a person."""
    total = max(1, summary["requests"])
    lines = []
    for tier in TIERS:
        number = summary["answered_by"][tier]
        bar = "█" * round(BAR_WIDTH * number / total)
        lines.append(f"{tier:<10}{number:>6}{number / total:>8.1%}  {bar}")
    right, latency = summary["accuracy"], summary["latency_ms"]
    sent, most = summary["uplink_bytes"] / 1000, summary["uplink_bytes_if_all_cloud"] / 1000
    lines += [
        (
            f"accuracy  hierarchy {right['hierarchy']:.4f}   edge only {right['edge_only']:.4f}   "
            f"cloud only {right['cloud_only']:.4f}"
        ),
        (
            f"latency   p50 {latency['p50']} ms   p99 {latency['p99']} ms   within "
            f"{summary['budget_ms']:g} ms: {summary['deadline_met']:.2%}"
        ),
        (
            f"marked    degraded {summary['degraded']}   abstained {summary['abstained']}   failed "
            f"{summary['failed']}"
        ),
        f"sent up   {sent:.0f} KB; if all were sent: {most:.0f} KB",
    ]
    promise = summary["promise"]
    if promise is not None:
        shares = ", ".join(
            f"{tier} {one['low']:.1%} .. {one['high']:.1%}"
            for tier, one in promise["answered_by"].items()
        )
        kept = "kept" if promise["holds"] else "not kept"
        lines.append(f"predicted {shares}: {kept} (guarantee: {promise['guarantee']})")
    lines.append(f"logs      {summary['state']}")
    return "\n".join(lines)
