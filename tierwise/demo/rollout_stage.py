"""What runs while the rollout demo does: keys, a repository, a cloud, a gateway and a fleet."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.adapters.broker import Preference, start_broker
from runtime.adapters.paho_bus import BrokerAddress, PahoBus
from runtime.errors import StartError
from tierwise.demo import plan, rollout_plan
from tierwise.demo.processes import Children, Roster
from tierwise.demo.variations import AS_GOOD, QUIETLY_WORSE, Variation, write_variation

READY_S = 60.0
_COMMAND_S = 60.0
_FLEET = "fleet"
# What the device is given: the first root, as it came with its image.
_ROOT = Path("metadata") / "1.root.json"
Note = Callable[[str], None]


@dataclass(frozen=True)
class RolloutStage:
    """Where everybody is."""

    cloud_state: Path
    gateway_url: str
    agent_urls: tuple[str, ...]


@asynccontextmanager
async def rollout_stage(
    folder: Path, agents: list[str], *, prefer: Preference, budget_ms: float, note: Note
) -> AsyncIterator[RolloutStage]:
    """All of it, online; gone afterwards, whatever happens.

    Raises:
        StartError: something could not start; the text says where its log is.
    """
    note("making keys, and publishing two versions of the edge model")
    keys, repository = folder / "keys", folder / "repository"
    await _prepare(folder, keys, repository)
    (key,) = keys.glob("rollout-*.pem")
    note("starting broker, cloud, gateway and agents")
    running = await asyncio.to_thread(start_broker, folder / "broker", prefer=prefer)
    address = plan.Address(running.address.host, running.address.port)
    children = Children(folder)
    bus = PahoBus(BrokerAddress(address.host, address.port), client_id="demo")
    try:
        roster = Roster(bus, (plan.REGION, plan.CLOUD_REGION))
        await bus.start()
        text = rollout_plan.cloud_settings(folder, address, repository, key)
        await start(children, folder, plan.CLOUD, "cloud_tier", text)
        await roster.wait_for({plan.CLOUD}, children, READY_S)
        cloud_url = roster.http_base(plan.CLOUD)
        text = rollout_plan.gateway_settings(folder, address, cloud_url)
        await start(children, folder, plan.GATEWAY, "regional_gateway", text)
        await roster.wait_for({plan.GATEWAY}, children, READY_S)
        gateway_url = roster.http_base(plan.GATEWAY)
        files = []
        for name in agents:
            files.append(folder / f"{name}.toml")
            files[-1].write_text(
                rollout_plan.agent_settings(
                    folder,
                    name,
                    address,
                    gateway_url=gateway_url,
                    root=repository / _ROOT,
                    budget_ms=budget_ms,
                )
            )
        listed = folder / f"{_FLEET}.txt"
        listed.write_text("".join(f"{file}\n" for file in files))
        await children.start(_FLEET, "tierwise.demo.fleet", listed)
        await roster.wait_for(set(agents), children, READY_S)
        yield RolloutStage(folder / plan.CLOUD, gateway_url, tuple(map(roster.http_base, agents)))
    finally:
        await bus.close()
        await children.stop()
        await asyncio.to_thread(running.stop)


async def _prepare(folder: Path, keys: Path, repository: Path) -> None:
    """Does what an operator does with these commands."""
    at = ("--repository", str(repository))
    await run_tierwise("keys", "init", "--folder", str(keys), "--unencrypted", *at)
    for variation in (AS_GOOD, QUIETLY_WORSE):
        model = folder / f"edge-{variation.version}"
        await asyncio.to_thread(write_variation, variation, model)
        await _publish(variation, model, keys, at)


async def _publish(variation: Variation, model: Path, keys: Path, at: tuple[str, str]) -> None:
    await run_tierwise(
        *("models", "publish", str(model), "--model", rollout_plan.MODEL),
        *("--version", str(variation.version), "--keys", str(keys), "--without-policy", *at),
    )


async def start(children: Children, folder: Path, name: str, module: str, settings: str) -> None:
    """Starts a tier with these settings, and does not wait for it."""
    config = folder / f"{name}.toml"
    config.write_text(settings)
    await children.start(name, module, config)


async def run_tierwise(*words: str) -> None:
    """Runs a command as a user would.

    Raises:
        StartError: it failed; with what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tierwise", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={name: text for name, text in os.environ.items() if not name.startswith("TIERWISE_")},
    )
    try:
        async with asyncio.timeout(_COMMAND_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise StartError(f"`tierwise {' '.join(words)}` has not ended in time") from None
    if process.returncode:
        text = said.decode(errors="replace").strip()[-500:]
        raise StartError(f"`tierwise {' '.join(words)}` failed: {text}")
