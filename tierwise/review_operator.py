"""``tierwise review`` at the cloud tier's port: lists, shows, labels."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from typing import Any
from urllib.parse import quote

from runtime.core.reasons import plain
from runtime.errors import StartError
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.cli.parser import UsageError
from tierwise.cloud_client import CloudClient
from tierwise.operator_access import client_of
from tierwise.review_command import due, duration, save
from tierwise.review_drawing import drawn_inputs
from tierwise.review_export import run_export

PREFIX = "/api/v1/reviews"
# As on the page of reviews.
KEYS = [*"1234567890", *"abcdefghijklmnopqrtvwxyz"]
_PAGE = 500


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says."""
    if getattr(arguments, "agent", None):
        return asyncio.run(_label_at_agent(arguments))
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        match arguments.what:
            case "list":
                await _list(arguments, client)
            case "show":
                await _show(arguments, client)
            case "agreement":
                await _agreement(arguments, client)
            case "export":
                return await run_export(arguments, client)
            case "label" if not arguments.id:
                return await _label_all(arguments, client)
            case _:
                await _move(arguments, client)
    return 0


def who_of(arguments: argparse.Namespace) -> str:
    """Who labels: as told, else whoever is logged in; nobody has checked it."""
    if arguments.who:
        return str(arguments.who)
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry for this user, as in a container
        return str(os.getuid())


def path_of(item: str, what: str = "") -> str:
    """Where an item is at the port."""
    return f"{PREFIX}/{quote(item, safe='')}{what}"


async def _list(arguments: argparse.Namespace, client: CloudClient) -> None:
    states = ",".join(arguments.states or ())
    found: dict[str, Any] = {"next": ""}
    items: list[dict[str, Any]] = []
    while True:
        found = await client.get(PREFIX, state=states, limit=_PAGE, after=found["next"])
        items += found["items"]
        if not found["next"]:
            break
    if arguments.json:
        say_json({**found, "items": items})
        return
    say_table(
        ("ITEM", "STATE", "SOURCE", "SITE", "MODEL", "LABELS", "AGE", "DUE"),
        [
            (
                plain(one["item"]),
                one["state"],
                one["source"],
                plain(f"{one['region']}/{one['site']}"),
                plain(one["model"]),
                f"{one['num_labels']}/{one['wanted']}",
                duration(one["age_s"]),
                due(one["due_in_s"]),
            )
            for one in items
        ],
        right=3,
    )
    say(f"{len(items)} items, {found['overdue']} overdue, {found['half']} past half their time")


async def _show(arguments: argparse.Namespace, client: CloudClient) -> None:
    item = await client.get(path_of(arguments.id), who=who_of(arguments))
    inputs = await client.inputs(path_of(arguments.id, "/inputs")) if item["inputs"] else {}
    if arguments.save is not None:
        if not inputs:
            raise StartError("the inputs of this item are not at the cloud tier")
        save(arguments.save, inputs)
    if arguments.json:
        say_json(item)
        return
    say(drawn_inputs(inputs))
    for name, value in item.items():
        say(f"{name + ':':16}{plain(str(value))}")
    if arguments.save is not None:
        say(f"written: {arguments.save}")


async def _agreement(arguments: argparse.Namespace, client: CloudClient) -> None:
    found = await client.get(f"{PREFIX}/agreement")
    if arguments.json:
        say_json(found)
        return
    if not found["pairs"]:
        note("no two people have labelled the same item")
        return
    say_table(
        ("FIRST", "SECOND", "ITEMS", "SAME", "KAPPA"),
        [
            (
                plain(one["first"]),
                plain(one["second"]),
                str(one["num_items"]),
                str(one["num_agreed"]),
                "-" if one["kappa"] is None else f"{one['kappa']:.3f}",
            )
            for one in found["pairs"]
        ],
        right=3,
    )


async def _move(arguments: argparse.Namespace, client: CloudClient) -> None:
    body: dict[str, Any] = {"who": who_of(arguments)}
    if arguments.what == "label":
        if arguments.label is None:
            raise UsageError("say which label: its number or its name")
        body["label"] = int(arguments.label) if arguments.label.isdecimal() else arguments.label
    elif arguments.what == "skip":
        body["why"] = arguments.why
    said = await client.post(path_of(arguments.id, f"/{arguments.what}"), body)
    if arguments.json:
        say_json(said)
        return
    say(f"{plain(arguments.id)}: {said['outcome']}, now {said['item']['state']}")
    _tell_answers(said["item"])


def _tell_answers(item: dict[str, Any]) -> None:
    names = item["labels"]
    for one in item.get("answers", ()):
        number = one.get("label")
        is_named = isinstance(number, int) and 0 <= number < len(names)
        said = names[number] if is_named else str(number)
        say(f"  {plain(str(one.get('tier'))):12}{plain(said)}")


async def _label_at_agent(arguments: argparse.Namespace) -> int:
    if not arguments.id or arguments.label is None:
        raise UsageError("with --agent say the request's id and the label")
    number = arguments.label
    body = {"request_id": arguments.id, "label": int(number) if number.isdecimal() else number}
    async with CloudClient(arguments.agent, "") as client:
        said = await client.post("/v2/feedback", body)
    if arguments.json:
        say_json(said)
    else:
        say(f"{plain(arguments.id)}: told to {arguments.agent}")
    return 0


async def _label_all(arguments: argparse.Namespace, client: CloudClient) -> int:
    """One item after the other, until nothing waits or somebody has had enough."""
    if arguments.json or not sys.stdin.isatty():
        raise UsageError("say which item and label, or label by keys on a terminal")
    from tierwise.review_keys import read_key  # noqa: PLC0415 - Unix only

    who, loop, last = who_of(arguments), asyncio.get_running_loop(), ""
    item = (await client.post(f"{PREFIX}/next", {"who": who}))["item"]
    num_done = 0
    while item is not None:
        say(drawn_inputs(await client.inputs(path_of(item["item"], "/inputs"))))
        pairs = zip(KEYS, item["labels"], strict=False)
        say("  ".join(f"[{key}] {plain(name)}" for key, name in pairs))
        say("[s] skip  [u] undo  [Esc] end")
        began_s = loop.time()
        key = await asyncio.to_thread(read_key)
        at = KEYS.index(key) if key in KEYS else -1
        if key in ("\x1b", "\x03", "\x04", ""):
            break
        if key == "u" and last:
            said = await client.post(path_of(last, "/undo"), {"who": who})
            say(said["outcome"])
            if said["outcome"] == "undone":
                item, last, num_done = said["item"], "", num_done - 1
            continue
        if key == "s":
            said = await client.post(path_of(item["item"], "/skip"), {"who": who})
        elif 0 <= at < len(item["labels"]):
            body = {"who": who, "label": at, "spent_s": loop.time() - began_s}
            said = await client.post(path_of(item["item"], "/label"), body)
            num_done += said["outcome"] == "counted"
        else:
            continue
        last = item["item"]
        say(said["outcome"])
        _tell_answers(said["item"])
        item = (await client.post(f"{PREFIX}/next", {"who": who}))["item"]
    say(f"{num_done} labelled" + ("" if item else ", nothing more waits"))
    return 0
