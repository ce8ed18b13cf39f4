"""Reports of reviews as they come from below, and a store that keeps them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from runtime.codec import encode_request
from runtime.messages import ItemKind, Tensors
from runtime.ports import OutboxItem
from runtime.review_report import ReviewReport

NOW_S = 1_790_000_000.0
LABELS = ("cat", "dog", "owl")
PICTURE: Tensors = {"image": (np.arange(784, dtype=np.float32) / 783).reshape(1, 28, 28)}


def report(name: str = "i1", inputs: Tensors | None = None, **changes: Any) -> ReviewReport:
    """An item of a device, with a picture."""
    body, header_length = encode_request(PICTURE if inputs is None else inputs, request_id=name)
    values: dict[str, Any] = {
        "item": name,
        "request_id": f"r-{name}",
        "wall_s": 100.0,
        "due_s": 3700.0,
        "tier": "edge",
        "site": "agent-1",
        "region": "plant",
        "model": "animals",
        "model_version": "1",
        "label": 1,
        "label_name": "dog",
        "confidence": 0.6,
        "chance": 0.6,
        "answers": '[{"tier":"edge","label":1},{"tier":"cloud","label":2}]',
        "residency": "cloud",
        "source": "last_resort",
        "labels": LABELS,
        "header_length": header_length,
        "body": body,
    }
    return ReviewReport(**(values | changes))


def sent(
    said: ReviewReport,
    *,
    at_s: float = NOW_S,
    origin: str = "plant/agent-1",
    sender: str = "gw-1",
    item_id: str = "",
) -> OutboxItem:
    """A report as it arrives."""
    body = msgspec.json.encode(said)
    return OutboxItem(
        item_id or f"o-{said.item}", ItemKind.REVIEW, at_s, body, origin=origin, sender=sender
    )
