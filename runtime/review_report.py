"""What a tier tells those above about an answer that a person is to look at.

The JSON body of an outbox item of the kind ``review``: kept until it is acknowledged, applied once.
Fields are only added, with defaults; unknown ones are skipped. Times are of the sender's clock, and
only their difference counts: the item carries its age.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from runtime.errors import MalformedBodyError
from runtime.ports import ReviewItem

# An outbox item has to fit into a message of a megabyte, and base64 makes four bytes of three.
MAX_INPUT_BYTES = 700_000
MAX_LABELS, MAX_LABEL_CHARACTERS = 256, 64
_Text = Annotated[str, Meta(max_length=256)]


class Source(enum.StrEnum):
    """Why somebody is to look at an answer."""

    POLICY = "policy"
    LAST_RESORT = "last_resort"
    AUDIT = "audit"
    DISAGREEMENT = "disagreement"
    DRIFT = "drift"
    RANDOM = "random"
    # No item: who has asked says that it waits for what people say of the item above.
    CALLER = "caller"


class ReviewReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ``ReviewItem`` on its way; ``body`` is empty where its inputs do not travel.

    ``labels`` are the names of the model's labels, ``outcome`` what the caller was told.
    """

    item: Annotated[str, Meta(pattern="^[0-9A-Za-z._-]{1,64}$")]
    request_id: Annotated[str, Meta(min_length=1, max_length=256)]
    wall_s: float
    due_s: float
    tier: _Text = ""
    site: _Text = ""
    region: _Text = ""
    model: _Text = ""
    model_version: _Text = ""
    policy: _Text = ""
    gear: _Text = ""
    label: Annotated[int, Meta(ge=-1, le=2**31 - 1)] = -1
    label_name: _Text = ""
    confidence: float = 0.0
    chance: float = 0.0
    answers: Annotated[str, Meta(max_length=16_384)] = "[]"
    residency: _Text = ""
    source: _Text = Source.POLICY.value
    labels: Annotated[tuple[_Text, ...], Meta(max_length=MAX_LABELS)] = ()
    outcome: _Text = ""
    header_length: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    body: bytes = b""


_DECODER = msgspec.json.Decoder(ReviewReport)
_FIELDS = tuple(
    name for name in ReviewReport.__struct_fields__ if name not in ("outcome", "header_length")
)


def report_of(item: ReviewItem, *, with_inputs: bool) -> ReviewReport:
    """What is told of an item; its inputs come along where they may and are not too large."""
    said = {name: getattr(item, name) for name in _FIELDS if name not in ("body", "labels")}
    names = tuple(name[:MAX_LABEL_CHARACTERS] for name in item.labels)
    travels = with_inputs and len(item.body) <= MAX_INPUT_BYTES
    return ReviewReport(
        **said,
        labels=names if len(names) <= MAX_LABELS else (),
        header_length=item.header_length if travels else 0,
        body=item.body if travels else b"",
    )


def decode_report(body: bytes) -> ReviewReport:
    """The report of an item's body.

    Raises:
        MalformedBodyError: it is none.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"no report of a review: {str(error)[:200]}") from None
