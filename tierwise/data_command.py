"""``tierwise data``: what the tiers have recorded, as a dataset for the next model."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from tierwise.cli.output import say, say_json

if TYPE_CHECKING:
    from runtime.core.dataset import Candidate, Chosen, Feedback
    from runtime.ports import ReviewItem

FORMAT = 1


def run_export(arguments: argparse.Namespace) -> int:
    """Writes hard examples, disagreements and what people have labelled."""
    from runtime.adapters.dataset_writer import new_dataset  # noqa: PLC0415 - keeps --help quick
    from runtime.adapters.feedback_reader import audits_in, feedback_in  # noqa: PLC0415
    from runtime.adapters.review_reader import find_item, queues_in, waiting_in  # noqa: PLC0415
    from runtime.codec import decode_request  # noqa: PLC0415
    from runtime.core.dataset import LeftOut, choose_all  # noqa: PLC0415
    from runtime.errors import RequestError  # noqa: PLC0415
    from runtime.messages import Residency  # noqa: PLC0415

    queues = queues_in(arguments.state)
    said, num_unreadable = feedback_in(arguments.state)
    agrees = audits_in(arguments.state)
    items = {item.item: item for item in waiting_in(queues)}
    candidates = [_candidate(item, said, agrees) for item in items.values()]
    chosen, left = choose_all(candidates, Residency(arguments.to), arguments.max_items)
    taken: list[Chosen] = []
    num_bytes = 0
    with new_dataset(arguments.out) as writer:
        for one in chosen:
            found = find_item(queues, one.candidate.item)
            # One that was taken out in the meantime counts like one that cannot be read.
            if found is None:
                left[LeftOut.UNREADABLE] += 1
                continue
            if num_bytes + len(found.body) > arguments.max_bytes:
                left[LeftOut.OVER_LIMIT] += 1
                continue
            try:
                inputs = decode_request(found.body, found.header_length).inputs
                num_bytes += writer.add(one, inputs)
            except (RequestError, ValueError):
                left[LeftOut.UNREADABLE] += 1
                continue
            taken.append(one)
        why = Counter(one.why for one in taken)
        summary: dict[str, Any] = {
            "format": FORMAT,
            "reach": arguments.to,
            "num_items": len(taken),
            "why": {key.value: num for key, num in sorted(why.items())},
            "left_out": {key.value: num for key, num in sorted(left.items()) if num},
            "unreadable_feedback": num_unreadable,
        }
        origins = [
            _origin(one, items[one.candidate.item]) | {"shard": shard, "row": row}
            for one, (shard, row) in zip(taken, writer.places, strict=True)
        ]
        writer.write_manifest(summary | {"items": origins})
    if arguments.json:
        say_json(summary | {"out": str(arguments.out), "num_shards": len(writer.shards)})
        return 0
    counts = ", ".join(f"{num} {key}" for key, num in summary["why"].items()) or "nothing"
    say(f"{arguments.out}: {len(taken)} examples ({counts}) in {len(writer.shards)} files")
    for key, num in summary["left_out"].items():
        say(f"left out: {num} ({key})")
    return 0


def _candidate(item: ReviewItem, said: dict[str, Feedback], agrees: dict[str, bool]) -> Candidate:
    from runtime.core.dataset import Candidate  # noqa: PLC0415 - keeps --help quick

    return Candidate(
        item.item,
        item.wall_s,
        item.residency,
        item.label,
        item.chance,
        _answers(item.answers),
        agrees.get(item.request_id),
        said.get(item.request_id),
    )


def _answers(text: str) -> tuple[int, ...]:
    """The labels that tiers gave; what cannot be read says nothing."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    try:
        answers = msgspec.json.decode(text, type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    labels = (answer.get("label") for answer in answers)
    return tuple(label for label in labels if type(label) is int and label >= 0)


def _origin(one: Chosen, item: ReviewItem) -> dict[str, Any]:
    return {
        "item": item.item,
        "request_id": item.request_id,
        "wall_s": item.wall_s,
        "why": one.why.value,
        "label": one.label,
        "weight": one.weight,
        "answered": item.label,
        "answers": list(one.candidate.answers),
        "tier": item.tier,
        "site": item.site,
        "region": item.region,
        "model": item.model,
        "model_version": item.model_version,
        "policy": item.policy,
        "gear": item.gear,
        "residency": item.residency,
    }
