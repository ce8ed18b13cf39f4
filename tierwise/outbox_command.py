"""``tierwise outbox``: what waits to be sent, what is parked, and what has arrived."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from runtime.core.reasons import plain
from runtime.errors import StartError
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.review_command import duration

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.ports import OutboxItem


def run_list(arguments: argparse.Namespace) -> int:
    """Lists what waits, in the order in which it is sent."""
    from runtime.adapters.outbox_reader import dropped_in, items_in, outboxes_in  # noqa: PLC0415

    paths, now_s = outboxes_in(arguments.state), time.time()
    items = [item for path in paths for item in items_in(path)]
    dropped: Counter[str] = Counter()
    for path in paths:
        dropped.update(dropped_in(path))
    if arguments.json:
        waiting = [_as_json(item, now_s) for item in items]
        say_json({"items": waiting, "dropped": dict(sorted(dropped.items()))})
        return 0
    if items:
        say_table(
            ("ITEM", "KIND", "TO", "FROM", "STATE", "AGE", "TRIES"),
            [
                (
                    plain(item.id),
                    item.kind.value,
                    plain(item.target) or "above",
                    plain(item.origin) or "here",
                    f"parked: {plain(item.parked)}" if item.parked else "waiting",
                    duration(now_s - item.created_s),
                    str(item.attempts),
                )
                for item in items
            ],
            right=2,
        )
    num_parked = sum(bool(item.parked) for item in items)
    say(f"{len(items) - num_parked} waiting, {num_parked} parked")
    for name, number in sorted(dropped.items()):
        kind, _, reason = name.partition(":")
        say(f"given up: {number} {kind} ({reason})")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Shows one item."""
    _, item = _find(arguments.state, arguments.id)
    shown = {**_as_json(item, time.time()), "content": _content(item)}
    if arguments.json:
        say_json(shown)
        return 0
    for name, value in shown.items():
        say(f"{name + ':':12}{plain(str(value))}")
    return 0


def run_retry(arguments: argparse.Namespace) -> int:
    """Has parked items sent again."""
    from runtime.adapters.outbox_reader import items_in, outboxes_in, retry  # noqa: PLC0415

    num_retried = 0
    for path in outboxes_in(arguments.state):
        parked = [item.id for item in items_in(path) if item.parked]
        num_retried += retry(path, [one for one in parked if one in (arguments.id or parked)])
    return _done(arguments, "retried", num_retried)


def run_drop(arguments: argparse.Namespace) -> int:
    """Gives items up."""
    from runtime.adapters.outbox_reader import drop, outboxes_in  # noqa: PLC0415

    num_dropped = sum(drop(path, arguments.id) for path in outboxes_in(arguments.state))
    return _done(arguments, "dropped", num_dropped)


def run_received(arguments: argparse.Namespace) -> int:
    """Lists what has arrived, newest first."""
    from runtime.adapters.outbox_reader import outboxes_in, received_in  # noqa: PLC0415

    found = [
        item
        for path in outboxes_in(arguments.state)
        for item in received_in(path, kind=arguments.kind, limit=arguments.limit)
    ]
    if arguments.json:
        say_json(
            {
                "received": [
                    {
                        "item": one.id,
                        "origin": one.origin,
                        "sender": one.sender,
                        "kind": one.kind,
                        "created_s": one.created_s,
                        "received_s": one.received_s,
                        "content": _json_of(one.body),
                    }
                    for one in found
                ]
            }
        )
        return 0
    if not found:
        note(f"nothing was received in {arguments.state}")
        return 0
    now_s = time.time()
    say_table(
        ("ITEM", "KIND", "FROM", "BY", "AGE", "LATE"),
        [
            (
                plain(one.id),
                plain(one.kind),
                plain(one.origin),
                plain(one.sender),
                duration(now_s - one.created_s),
                duration(one.received_s - one.created_s),
            )
            for one in found
        ],
        right=2,
    )
    return 0


def _done(arguments: argparse.Namespace, what: str, number: int) -> int:
    if arguments.json:
        say_json({what: number})
    else:
        say(f"{number} {what}")
    return 0


def _find(state: Path, item_id: str) -> tuple[Path, OutboxItem]:
    from runtime.adapters.outbox_reader import find_item, outboxes_in  # noqa: PLC0415

    for path in outboxes_in(state):
        item = find_item(path, item_id)
        if item is not None:
            return path, item
    raise StartError(f"{plain(item_id)!r}: nothing of this id is in an outbox")


def _as_json(item: OutboxItem, now_s: float) -> dict[str, Any]:
    return {
        "item": item.id,
        "kind": item.kind.value,
        "target": item.target,
        "origin": item.origin,
        "created_s": item.created_s,
        "age_s": round(max(0.0, now_s - item.created_s), 3),
        "attempts": item.attempts,
        "parked": item.parked,
        "properties": dict(item.properties),
    }


def _content(item: OutboxItem) -> Any:  # noqa: ANN401 - whatever is in it
    """What is in an item; of an escalation the size, for its inputs are no text."""
    said = _json_of(item.body)
    return f"{len(item.body)} bytes" if said is None else said


def _json_of(body: bytes) -> Any:  # noqa: ANN401 - whatever is in it
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
