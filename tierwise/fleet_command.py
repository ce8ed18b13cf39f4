"""``tierwise fleet``: asks the cloud tier's service, and tells what it says."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from tierwise.cli.output import note, say, say_json, say_table
from tierwise.operator_access import client_of
from tierwise.rollout_command import login
from tierwise.rollout_view import clock_time

_PATH = "/api/v1/fleet"


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        if arguments.what == "list":
            said = await client.get(f"{_PATH}/retired")
        else:
            asked = {
                "device": arguments.device,
                "region": arguments.region,
                "by": arguments.by or login(),
                "why": arguments.why,
            }
            said = await client.post(f"{_PATH}/{arguments.what}", asked)
    if arguments.json:
        say_json(said)
    elif arguments.what == "list":
        _tell_list(said["retired"])
    else:
        words = "is out of service" if arguments.what == "retire" else "is watched again"
        say(f"{said['region']}/{said['site']} {words}")
        if not said["is_audited"]:
            note("the change stands, but the audit could not be written: see the cloud tier's log")
    return 0


def _tell_list(devices: list[dict[str, Any]]) -> None:
    if not devices:
        say("nothing is out of service")
        return
    rows = [
        [
            one["region"],
            one["site"],
            clock_time(one["at_s"]),
            one["by"],
            "retired, yet it speaks" if one["speaks"] else "retired",
            one["why"],
        ]
        for one in devices
    ]
    say_table(("REGION", "DEVICE", "SINCE", "BY", "STATE", "WHY"), rows)
