"""``tierwise alerts``: asks the cloud tier's service, and tells what it says."""

from __future__ import annotations

import argparse
import asyncio
from functools import partial
from typing import Any

from tierwise.cli.output import note, say, say_json, say_table
from tierwise.operator_access import client_of
from tierwise.rollout_command import login
from tierwise.rollout_view import clock_time

_PATH = "/api/v1/alerts"


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says; 1 where a sink has not taken a test."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        if arguments.what == "list":
            said = await client.get(_PATH)
            tell = _tell_list
        elif arguments.what == "silence":
            by = arguments.by or login()
            asked = {
                "key": arguments.key,
                "for_s": arguments.for_s,
                "by": by,
                "why": arguments.why,
            }
            said = await client.post(f"{_PATH}/silence", asked)
            if not any(map(partial(_is_meant, said["key"]), (await client.get(_PATH))["alerts"])):
                note("tierwise: no alert has this key now; the silence is for those to come")
            tell = _tell_silence
        else:
            said = await client.post(f"{_PATH}/test", {})
            tell = _tell_test
    if arguments.json:
        say_json(said)
    else:
        tell(said)
    return 0 if all(one["ok"] for one in said.get("sinks", ())) else 1


def _is_meant(key: str, alert: dict[str, Any]) -> bool:
    known = str(alert["key"])
    return known.startswith(key[:-1]) if key.endswith("*") else known == key


def _tell_list(said: dict[str, Any]) -> None:
    if not said["alerts"]:
        say("nothing is wrong")
    else:
        rows = [
            [
                one["key"],
                f"{one['phase']}, silenced" if one["silenced"] else one["phase"],
                one["severity"],
                clock_time(one["since_s"]),
                one["summary"],
            ]
            for one in said["alerts"]
        ]
        say_table(("KEY", "PHASE", "SEVERITY", "SINCE", "WHAT"), rows)
        kinds: dict[str, list[str]] = {}
        for one in said["alerts"]:
            kinds.setdefault(one.get("remedy", ""), []).append(one["kind"])
        for remedy, of in kinds.items():
            if remedy:
                say(f"{', '.join(dict.fromkeys(of))}: {remedy}")
    for one in said["silences"]:
        _tell_silence(one)


def _tell_silence(said: dict[str, Any]) -> None:
    why = f": {said['why']}" if said["why"] else ""
    say(f"{said['key']} is silenced until {clock_time(said['until_s'])} by {said['by']}{why}")


def _tell_test(said: dict[str, Any]) -> None:
    if not said["sinks"]:
        say("there are no sinks: set alerts.webhook_urls or alerts.mqtt")
    for one in said["sinks"]:
        say(f"{one['sink']}: {'taken' if one['ok'] else one['why']}")
