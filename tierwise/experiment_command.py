"""``tierwise experiment``: asks the cloud tier's service, and tells what it says."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any
from urllib.parse import quote

from runtime.core.reasons import plain
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.cli.parser import UsageError
from tierwise.operator_access import client_of
from tierwise.rollout_command import login
from tierwise.rollout_view import clock_time


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        if arguments.what == "list":
            _tell_list(arguments, (await client.get("/experiments"))["experiments"])
            return 0
        if arguments.what == "start":
            found = await client.post("/experiments", start_request(arguments))
        else:
            path = f"/experiments/{quote(arguments.id, safe='')}"
            if arguments.what == "status":
                found = await client.get(path)
            else:
                asked = {"by": arguments.by or login(), "why": arguments.why}
                if arguments.what == "promote":
                    asked["arm"] = arguments.arm
                found = await client.post(f"{path}/{arguments.what}", asked)
        if arguments.json:
            say_json(found)
        else:
            _tell(found)
    return 0


def start_request(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the service is asked for.

    Raises:
        UsageError: an arm or a guardrail is not understood.
    """
    asked: dict[str, Any] = {
        "model": arguments.model,
        "control": _arm("--control", arguments.control),
        "arms": [_arm("--arm", one) for one in arguments.arm],
        "by": arguments.by or login(),
        "why": arguments.why,
        "primary": arguments.primary,
        "observe_s": arguments.observe,
        "min_devices": arguments.min_devices,
    }
    if arguments.split_by:
        asked["split_by"] = arguments.split_by
    if arguments.id:
        asked["id"] = arguments.id
    if arguments.guardrail:
        asked["guardrails"] = dict(_guardrail(one) for one in arguments.guardrail)
    return asked


def _arm(option: str, text: str) -> dict[str, Any]:
    version, _, weight = text.partition(":")
    try:
        return {"version": int(version), "weight": float(weight or 1)}
    except ValueError:
        raise UsageError(f"{option} {text!r} is no version such as 3, or 3:0.5") from None


def _guardrail(text: str) -> tuple[str, float]:
    name, _, allowed = text.rpartition(":")
    try:
        return name, float(allowed)
    except ValueError:
        raise UsageError(f"--guardrail {text!r} is not METRIC:SHARE, as errors:0.01 is") from None


def _tell(found: dict[str, Any]) -> None:
    state = "is running" if found["is_running"] else f"has ended, {plain(found['ended'])}"
    say(f"{found['id']}: {found['model']} {state}")
    say(f"  started by {plain(found['by'])}: {plain(found['why'])}")
    say_table(
        ("  ARM", "VERSION", "DEVICES", "OBSERVED", *(name.upper() for name in found["metrics"])),
        [
            (
                f"  {arm['name']}",
                str(arm["version"]),
                str(arm["devices"]),
                str(arm["observed"]),
                *(_interval(arm["means"].get(name)) for name in found["metrics"]),
            )
            for arm in found["arms"]
        ],
    )
    if found.get("split_by"):
        say(f"  every device has both versions; requests are divided by {plain(found['split_by'])}")
    if "unkeyed_requests" in found:
        say(f"  {found['unkeyed_requests']} requests had no key, or named a version: in no arm")
    for arm in found["arms"]:
        if arm["gain"]:
            better = f"{_signed(arm['gain']['low'])} to {_signed(arm['gain']['high'])}"
            say(f"  {arm['name']} is better than the control by {better} in {found['primary']}")
    say(f"  {found['outcome'].replace('_', ' ')}: {plain(found['says'])}")
    if found["draft"]:
        say(f"  next: tierwise rollout approve {found['draft']} --why TEXT, by somebody else")


def _interval(found: dict[str, float] | None) -> str:
    return f"{found['low']:.4f} to {found['high']:.4f}" if found else "-"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _tell_list(arguments: argparse.Namespace, experiments: list[dict[str, Any]]) -> None:
    if arguments.json:
        say_json({"experiments": experiments})
        return
    if not experiments:
        note("no experiment was ever started; `tierwise experiment start` does")
        return
    say_table(
        ("ID", "MODEL", "ARMS", "STARTED", "STATE", "OUTCOME"),
        [
            (
                one["id"],
                one["model"],
                ", ".join(f"{arm['name']} ({arm['devices']})" for arm in one["arms"]),
                clock_time(one["started_s"]),
                "running" if one["is_running"] else "ended",
                one["outcome"],
            )
            for one in experiments
        ],
    )
