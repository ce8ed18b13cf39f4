"""``tierwise rollout``: asks the cloud tier's service, and tells what it says."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import socket
import tomllib
from typing import Any
from urllib.parse import quote

from runtime.core.reasons import plain
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.cli.parser import UsageError
from tierwise.cloud_client import CloudClient
from tierwise.operator_access import client_of
from tierwise.rollout_view import clock_time, report, told_line
from tierwise.rollout_watch import watch

_PAGE = 1000


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says; 1 where a rollout that was watched was not done."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        if arguments.what == "list":
            _tell_list(arguments, (await client.get("/rollouts"))["rollouts"])
        elif arguments.what == "history":
            await _tell_history(arguments, client)
        elif arguments.what == "watch":
            return await watch(client, path_of(arguments.id), as_json=arguments.json)
        elif arguments.what == "status":
            query = {"devices": "1"} if arguments.devices else {}
            _tell(arguments, await client.get(path_of(arguments.id), **query))
        elif arguments.what == "start":
            _tell(arguments, await client.post("/rollouts", start_request(arguments)))
        else:
            asked = {"by": arguments.by or login(), "why": arguments.why}
            path = f"{path_of(arguments.id)}/{arguments.what}"
            _tell(arguments, await client.post(path, asked))
    return 0


def path_of(rollout_id: str) -> str:
    """Where a rollout is at the service."""
    return f"/rollouts/{quote(rollout_id, safe='')}"


def start_request(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the service is asked for.

    Raises:
        UsageError: the plan cannot be read, or a share is no number.
    """
    asked: dict[str, Any] = {
        "model": arguments.model,
        "version": arguments.version,
        "by": arguments.by or login(),
        "why": arguments.why,
        "is_draft": arguments.draft,
        "clears_bad": arguments.again,
        "settings": _settings(arguments),
    }
    for name in ("region", "id", "group"):
        if getattr(arguments, name):
            asked[name] = getattr(arguments, name)
    return asked


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if arguments.plan is not None:
        try:
            settings = tomllib.loads(arguments.plan.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"--plan {arguments.plan} cannot be read: {error}") from None
    if arguments.shares:
        try:
            settings["shares"] = [float(share) for share in arguments.shares.split(",")]
        except ValueError:
            raise UsageError(
                f"--shares {arguments.shares!r} is no list such as 0.01,0.1,1"
            ) from None
        settings.pop("alpha_shares", None)
    if arguments.no_shadow:
        settings["shadow"] = None
    if arguments.rollback:
        settings["rollback"] = arguments.rollback
    return settings


def login() -> str:
    """Who asks, by the machine; nobody has checked it."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no entry for this user, as in a container
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"[:128]


def _tell(arguments: argparse.Namespace, status: dict[str, Any]) -> None:
    if arguments.json:
        say_json(status)
        return
    for line in report(status):
        say(line)
    if "executions" in status:
        say_table(
            ("DEVICE", "HARDWARE", "WAVE", "STATE", "SINCE", "REASON"),
            [
                (
                    plain(one["id"]),
                    plain(one["hardware"]),
                    str(one["wave"]),
                    one.get("state", "pending"),
                    clock_time(one.get("since_s", 0)),
                    plain(one.get("reason", "")),
                )
                for one in status["executions"]
            ],
        )


def _tell_list(arguments: argparse.Namespace, rollouts: list[dict[str, Any]]) -> None:
    if arguments.json:
        say_json({"rollouts": rollouts})
        return
    if not rollouts:
        note("no rollout was ever started; `tierwise rollout start` does")
        return
    say_table(
        ("ID", "VERSION", "PHASE", "STAGE", "STARTED", "BY", "DEVICES", "CONFIRMED", "FAILED"),
        [
            (
                one["id"],
                f"{one['model']}/{one['version']}",
                f"{one['phase']}{' (asks)' if one['asked'] else ''}",
                one["stage"],
                clock_time(one["created_s"]),
                plain(one["by"]),
                str(one["devices"]),
                str(one["confirmed"]),
                str(one["failed"]),
            )
            for one in rollouts
        ],
        right=3,
    )


async def _tell_history(arguments: argparse.Namespace, client: CloudClient) -> None:
    after, lines = arguments.after, []
    path = f"{path_of(arguments.id)}/history"
    while True:
        page = (await client.get(path, after=after, limit=_PAGE))["history"]
        if arguments.json:
            lines += page
        for one in () if arguments.json else page:
            say(told_line(one))
        if len(page) < _PAGE:
            break
        after = page[-1]["seq"]
    if arguments.json:
        say_json({"history": lines})
