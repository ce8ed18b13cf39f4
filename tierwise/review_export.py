"""``tierwise review export``: what people have labelled, as examples."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any
from urllib.parse import quote

import numpy as np

from runtime.errors import StartError
from runtime.messages import Tensors
from tierwise.cli.output import say, say_json
from tierwise.cloud_client import CloudClient
from tierwise.review_command import save

_PREFIX, _PAGE = "/api/v1/reviews", 500
# Arrays beside the inputs; an input of such a name could not be told from them.
OWN_NAMES = ("labels", "who", "agreement", "items")


async def run_export(arguments: argparse.Namespace, client: CloudClient) -> int:
    """Writes one ``.npz``: inputs by name, ``labels``, ``who``, ``agreement`` and ``items``."""
    states = ["labelled", "agreed", *(["disputed"] if arguments.disputed else [])]
    rows: list[tuple[str, int, str, float, Tensors]] = []
    left = Counter[str]()
    after = ""
    while True:
        page = await client.get(_PREFIX, state=",".join(states), limit=_PAGE, after=after)
        for one in page["items"]:
            if arguments.model and one["model"] != arguments.model:
                left["of another model"] += 1
            elif not one["has_inputs"]:
                left["without inputs"] += 1
            else:
                rows.append(await _example(client, one["item"]))
        after = page["next"]
        if not after:
            break
    kept = _alike(rows, left)
    if not kept:
        raise StartError("nothing is labelled that could be written: see `tierwise review list`")
    arrays: dict[str, Any] = {
        name: np.concatenate([inputs[name] for *_, inputs in kept]) for name in kept[0][4]
    }
    arrays["labels"] = np.array([label for _, label, *_ in kept], np.int64)
    arrays["who"] = np.array([who.encode() for _, _, who, *_ in kept], "S")
    arrays["agreement"] = np.array([agreed for *_, agreed, _ in kept], np.float32)
    arrays["items"] = np.array([item.encode() for item, *_ in kept], "S")
    save(arguments.output, arrays)
    summary = {"output": str(arguments.output), "examples": len(kept), "left_out": dict(left)}
    if arguments.json:
        say_json(summary)
        return 0
    say(f"{arguments.output}: {len(kept)} examples")
    for why, num in sorted(left.items()):
        say(f"left out: {num} ({why})")
    return 0


async def _example(client: CloudClient, item: str) -> tuple[str, int, str, float, Tensors]:
    path = f"{_PREFIX}/{quote(item, safe='')}"
    # Of a disputed item, too, all is told: whoever exports it does not label it.
    view = await client.get(path, all="1")
    given = [one for one in view["given"] if one["label"] is not None]
    counts = Counter(int(one["label"]) for one in given)
    label = view["winner"] if view["winner"] is not None else counts.most_common(1)[0][0]
    who = ",".join(str(one["who"]) for one in given)
    return item, label, who, counts[label] / len(given), await client.inputs(f"{path}/inputs")


def _alike(
    rows: list[tuple[str, int, str, float, Tensors]], left: Counter[str]
) -> list[tuple[str, int, str, float, Tensors]]:
    """Those with the inputs that most have; the rest is counted."""

    def form(inputs: Tensors) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        return tuple(
            sorted((name, array.dtype.kind, array.shape) for name, array in inputs.items())
        )

    usable = [row for row in rows if not set(row[4]) & set(OWN_NAMES)]
    forms = Counter(form(row[4]) for row in usable)
    if not forms:
        left["inputs of a name of ours"] += len(rows)
        return []
    wanted = forms.most_common(1)[0][0]
    kept = [row for row in usable if form(row[4]) == wanted]
    if len(rows) > len(kept):
        left["of other inputs"] += len(rows) - len(kept)
    return kept
