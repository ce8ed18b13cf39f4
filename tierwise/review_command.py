"""``tierwise review``: what waits for people, and what there is to judge it by."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import StartError
from tierwise.cli.output import note, say, say_json, say_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.messages import Tensors
    from runtime.ports import ReviewItem

_UNITS = (("d", 86_400), ("h", 3600), ("m", 60))


def run_list(arguments: argparse.Namespace) -> int:
    """Lists what waits, oldest first."""
    from runtime.adapters.review_reader import queues_in, waiting_in  # noqa: PLC0415 - quick help
    from runtime.core.reasons import plain  # noqa: PLC0415 - keeps --help quick

    items, now_s = waiting_in(queues_in(arguments.state)), time.time()
    if arguments.json:
        say_json({"waiting": [_as_json(item, now_s) for item in items]})
        return 0
    if not items:
        note(f"nothing waits for review in {arguments.state}")
        return 0
    say_table(
        ("ITEM", "REQUEST", "TIER", "SITE", "ANSWER", "CHANCE", "AGE", "DUE"),
        [
            (
                plain(item.item),
                plain(item.request_id),
                plain(item.tier),
                plain(item.site),
                plain(item.label_name),
                f"{item.chance:.2f}",
                duration(now_s - item.wall_s),
                due(item.due_s - now_s),
            )
            for item in items
        ],
        right=3,
    )
    num_late = sum(item.due_s < now_s for item in items)
    say(f"{len(items)} waiting, {num_late} of them longer than promised")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Shows one item, and saves its inputs."""
    from runtime.adapters.review_reader import find_items, queues_in  # noqa: PLC0415 - quick help
    from runtime.core.reasons import plain  # noqa: PLC0415 - keeps --help quick

    found = find_items(queues_in(arguments.state), arguments.id)
    if len(found) != 1:
        others = f"{len(found)} items have this id: {', '.join(item.item for item in found)}"
        raise StartError(
            f"{plain(arguments.id)!r}: {others if found else 'nothing of this id waits'}"
        )
    (item,), now_s = found, time.time()
    inputs = _inputs(item)
    if arguments.save is not None:
        save(arguments.save, inputs)
    shapes = {name: [str(array.dtype), list(array.shape)] for name, array in inputs.items()}
    if arguments.json:
        say_json({**_as_json(item, now_s), "inputs": shapes})
        return 0
    for name, value in {**_as_json(item, now_s), "inputs": shapes}.items():
        say(f"{name + ':':16}{plain(str(value))}")
    if arguments.save is not None:
        say(f"written: {arguments.save}")
    return 0


def save(path: Path, inputs: Tensors) -> None:
    """Writes inputs as an ``.npz`` by name, as ``tierwise policy collect --data`` reads them.

    Raises:
        StartError: it cannot be written.
    """
    import numpy as np  # noqa: PLC0415

    plain_arrays: dict[str, Any] = {
        # Text as numpy's own bytes: objects would have to be unpickled.
        name: array.astype("S") if array.dtype.kind == "O" else array
        for name, array in inputs.items()
    }
    try:
        with path.open("wb") as file:
            np.savez(file, **plain_arrays)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from error


def _inputs(item: ReviewItem) -> Tensors:
    from runtime.codec import decode_request  # noqa: PLC0415

    return decode_request(item.body, item.header_length).inputs


def _as_json(item: ReviewItem, now_s: float) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    plain_item = dataclasses.asdict(item)
    for name in ("body", "header_length", "source", "labels"):
        del plain_item[name]
    plain_item["answers"] = msgspec.json.decode(item.answers)
    return {**plain_item, "age_s": round(now_s - item.wall_s, 3), "is_late": item.due_s < now_s}


def duration(seconds: float) -> str:
    """A time for people: its largest unit, whole."""
    seconds = max(0.0, seconds)
    for unit, length_s in _UNITS:
        if seconds >= length_s:
            return f"{int(seconds // length_s)}{unit}"
    return f"{int(seconds)}s"


def due(left_s: float) -> str:
    """When it was promised, seen from now."""
    return f"in {duration(left_s)}" if left_s >= 0 else f"{duration(-left_s)} late"


def say_reviews(gears: Sequence[Any], *, is_asked: bool = False) -> None:
    """A line for each gear that asks people; with ``is_asked`` also for those that cannot."""
    for gear in gears:
        review = gear.review
        if review is not None:
            share = gear.promise.reviewed
            say(
                f"{gear.name}: {share:.2%} of requests also go to a person, for "
                f"{share * review.price:.3f} of cost a request: {review.price:g} a review, right "
                f"in {review.accuracy:.0%}, promised within {duration(review.latency_ms / 1000)}"
            )
        elif is_asked:
            say(
                f"{gear.name}: no reviews: it asks the top tier whatever that costs, so accuracy "
                "has no price there"
            )
