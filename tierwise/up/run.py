"""Starts broker and tiers, says how to ask them, and ends all of them with Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import numpy as np
import structlog

from runtime.adapters.artifacts import write_artifact
from runtime.adapters.broker import RunningBroker, start_broker
from runtime.adapters.paho_bus import BrokerAddress, PahoBus
from runtime.adapters.policy_file import read_policy
from runtime.errors import PolicyError, StartError
from runtime.manifest import ModelManifest
from runtime.supervise import run_service
from runtime.tensors import dtype_of
from tierwise.cli.output import note, say, say_json
from tierwise.demo.plan import CLOUD_REGION, Address, dashboard_of
from tierwise.demo.processes import Children, Roster
from tierwise.up.plan import EDGE, MODULES, REGION, Plan, check_models, write_settings

READY_S = 60.0
WATCH_S = 0.5
# Of a larger example, the curl line would be no line.
MAX_EXAMPLE = 4096


def run_up(arguments: argparse.Namespace) -> int:
    """Runs until it is told to stop; returns the exit code."""
    folders = {
        tier: folder
        for tier, folder in (
            ("edge", arguments.edge),
            ("regional", arguments.regional),
            ("cloud", arguments.cloud),
        )
        if folder is not None
    }
    manifests = check_models(folders)
    if arguments.policy is not None:
        tiers = set(read_policy(arguments.policy).policy.tiers)
        if tiers != set(folders):
            raise PolicyError(
                f"{arguments.policy} is for the tiers {', '.join(sorted(tiers))}; started are "
                f"{', '.join(folders)}"
            )
    if arguments.port:
        _check_port(arguments.port)
    try:
        arguments.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"--state {arguments.state}: {error.strerror}") from error
    plan = Plan(
        folders, arguments.state.resolve(), arguments.policy, arguments.port, arguments.budget_ms
    )

    async def serve(stop: asyncio.Event) -> None:
        async with _stage(plan, arguments) as (bases, broker):
            _tell(arguments, plan, manifests["edge"], bases, broker)
            await stop.wait()
            note("stopping")

    try:
        with (plan.state / "up.log").open("a") as log:
            # Standard output is for the URLs.
            structlog.configure(logger_factory=structlog.WriteLoggerFactory(log))
            return run_service(serve)
    except OSError as error:
        raise StartError(f"--state {plan.state}: {error.strerror}") from error


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartError(
                f"port {port} is in use: end what listens there, or choose one with --port (0: any)"
            ) from error


@asynccontextmanager
async def _stage(
    plan: Plan, arguments: argparse.Namespace
) -> AsyncIterator[tuple[dict[str, str], RunningBroker]]:
    """Broker and tiers, watched; all are gone afterwards, whatever happens."""
    starting = asyncio.ensure_future(
        asyncio.to_thread(start_broker, plan.state / "broker", prefer=arguments.broker)
    )
    try:
        broker = await asyncio.shield(starting)
    except asyncio.CancelledError:
        (await starting).stop()
        raise
    address = Address(broker.address.host, broker.address.port)
    children = Children(plan.state)
    bus = PahoBus(BrokerAddress(address.host, address.port), client_id="up")
    try:
        files = write_settings(plan, address)
        roster = Roster(bus, (REGION, CLOUD_REGION))
        await bus.start()
        for site in plan.sites:
            await children.start(site, MODULES[site], files[site])
        await roster.wait_for(set(files), children, READY_S)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(children))
            yield {site: roster.http_base(site) for site in plan.sites}, broker
            watch.cancel()
    finally:
        await bus.close()
        await children.stop()
        await asyncio.to_thread(broker.stop)


async def _watch(children: Children) -> None:
    """Raises StartError when a tier has ended."""
    while True:
        await asyncio.sleep(WATCH_S)
        children.check_alive()


def _tell(
    arguments: argparse.Namespace,
    plan: Plan,
    manifest: ModelManifest,
    bases: dict[str, str],
    broker: RunningBroker,
) -> None:
    url = bases[EDGE]
    curl = f"curl -s {url}/v2/models/{manifest.name}"
    if all(np.prod(spec.shape[1:]) <= MAX_EXAMPLE for spec in manifest.inputs):
        request = plan.state / "request.json"
        write_artifact(request, _example(manifest))
        curl = f"curl -s -d @{shlex.quote(str(request))} {curl.removeprefix('curl -s ')}/infer"
    infer = f"tierwise infer --url {url} --data FILE.npz --index 0"
    dashboard = dashboard_of(plan.state) if "cloud" in plan.folders else ""
    if arguments.json:
        say_json(
            {
                "url": url,
                "model": manifest.name,
                "tiers": bases,
                "broker": f"mqtt://{broker.address.host}:{broker.address.port}",
                "state": str(plan.state),
                "dashboard": dashboard,
                "curl": curl,
                "infer": infer,
            }
        )
    else:
        say(f"broker     mqtt://{broker.address.host}:{broker.address.port} ({broker.kind})")
        for site, base in sorted(bases.items()):
            say(f"{site:10} {base}")
        if dashboard:
            say(f"dashboard  {dashboard}")
        say(f"logs and state are in {plan.state}\n\nTry:\n  {curl}\n  {infer}\n")
        say("Ctrl-C ends all of it.")
    # A pipe is read line by line by whoever waits for this.
    sys.stdout.flush()


def _example(manifest: ModelManifest) -> bytes:
    """A request with made-up numbers."""
    random = np.random.default_rng(0)
    inputs = []
    for spec in manifest.inputs:
        values = random.random((1, *spec.shape[1:])) * (255 if spec.datatype == "UINT8" else 1)
        data = values.round(3).astype(dtype_of(spec.datatype)).ravel().tolist()
        inputs.append(
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": list(values.shape),
                "data": [round(one, 3) for one in data],
            }
        )
    return msgspec.json.encode({"inputs": inputs})
