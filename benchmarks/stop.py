"""From publishing what is stopped to an agent having it in force, over real processes and brokers.

Both regions are changed in turn: the agent's own, and the cloud's, whose state a gateway relays.
An agent is asked over HTTP all the time; what asking costs is part of the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import aiohttp
from offline_start import free_port

from hardware_profiles.detect import detect
from runtime import topics
from runtime.adapters.broker import Preference, start_broker
from runtime.adapters.paho_bus import PahoBus
from runtime.common_settings import LogSettings
from runtime.logs import configure_logs
from runtime.messages import ControlState, Stop, StopMode, StopScope, encode_control
from runtime.ports import Message

READY_S = 30.0
POLL_S = 0.001


def main() -> None:
    """Prints the milliseconds of each change, for each broker and region."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=20, help="of each region")
    parser.add_argument("--broker", choices=get_args(Preference), default="auto")
    arguments = parser.parse_args()
    configure_logs(LogSettings(level="error"))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        result = asyncio.run(measured(Path(folder), stack, arguments.broker, arguments.changes))
    sys.stdout.write(json.dumps(result) + "\n")


async def measured(
    folder: Path, stack: ExitStack, kind: Preference, num_changes: int
) -> dict[str, Any]:
    """Starts everything and changes both regions."""
    broker = start_broker(folder / "broker", prefer=kind)
    stack.callback(broker.stop)
    at = {"broker.port": broker.address.port}
    start(stack, folder, "cloud_tier", {"cloud": "cloud-1", "region": "cloud", **at})
    up = {"upstream.broker.port": broker.address.port}
    plant = {"region": "plant", **at}
    start(stack, folder, "regional_gateway", {"gateway": "gateway-1", **plant, **up})
    url = start(stack, folder, "edge_agent", {"agent": "agent-1", **plant})
    bus = PahoBus(broker.address, client_id="desk")
    await bus.start()
    taken_ms: dict[str, list[float]] = {"plant": [], "cloud": []}
    async with aiohttp.ClientSession() as session:
        # The first change of each finds everything up, and is not counted.
        for number in range(num_changes + 1):
            for region, taken in taken_ms.items():
                taken.append(await one_change(session, bus, url, region, number + 1))
    await bus.close()
    return {
        "machine": str(detect()),
        "broker": broker.kind,
        **{
            f"{region}_ms": {
                "median": round(statistics.median(taken[1:]), 1),
                "max": round(max(taken[1:]), 1),
            }
            for region, taken in taken_ms.items()
        },
    }


async def one_change(
    session: aiohttp.ClientSession, bus: PahoBus, url: str, region: str, sequence: int
) -> float:
    """The milliseconds until the agent has a state of this sequence."""
    stop = Stop(StopScope.ALL, StopMode.STOP, "measured", "benchmark", time.time())
    state = ControlState(region, sequence, (stop,) if sequence % 2 else ())
    await bus.wait_connected(READY_S)
    began_s = time.monotonic()
    topic = topics.control(region)
    bus.publish(Message(topic, encode_control(state), qos=1, retain=True))
    while time.monotonic() - began_s < READY_S:
        try:
            async with session.get(f"{url}/v2/control") as response:
                known = (await response.json())["states"]
        except aiohttp.ClientConnectionError:
            known = []
        if any((one["region"], one["sequence"]) == (region, sequence) for one in known):
            return (time.monotonic() - began_s) * 1000
        await asyncio.sleep(POLL_S)
    raise SystemExit(f"the agent has not heard of {region} within {READY_S:g} s")


def start(stack: ExitStack, folder: Path, module: str, settings: dict[str, Any]) -> str:
    """Starts a tier that ends with the stack; its URL."""
    port = free_port()
    settings = {**settings, "http.port": port, "state.folder": str(folder / module)}
    flags = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    log = stack.enter_context((folder / f"{module}.log").open("ab"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", module, *flags],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
    )
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    return f"http://127.0.0.1:{port}"


if __name__ == "__main__":
    main()
