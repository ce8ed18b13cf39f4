"""One decision told whole: what a rollup carries of a few of those that it counts.

A sample holds why a tier acted as it did, and how it ended: the id of the request as its caller
chose it, names, a label, and single numbers. It never holds an input, nor anything as long as one:
of what tiers answered there is a label and a score each, never a score of every label.

Rules of this file:
  * only a decision whose payload might have reached the cloud is told (residency ``cloud``);
  * every text and every number has a bound, and a whole sample ``MAX_SAMPLE_BYTES``;
  * fields are only added, at the end, with defaults; further ones are skipped.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

# Samples of one rollup, those of one device in it, and of which as JSON.
MAX_SAMPLES = 500
MAX_SAMPLES_OF_A_SITE = 100
MAX_SAMPLE_BYTES = 2048
MAX_SAMPLES_BYTES = 262_144
MAX_AGE_S = 1e9
# As runtime.exchange.wire has it.
MAX_ID_CHARACTERS = 128
MAX_TEXT = 128
MAX_NUMBER = 1e18
MAX_COUNT = 1 << 53
MAX_HOP = 64
MAX_LABEL = 1 << 31
# What runtime.core.seen writes, of six tiers at most.
SEEN_PATTERN = r"^(?:(?:[a-z0-9-]{1,16}=\d{1,10}:-?\d[\d.e+-]{0,30})(?:;(?!$)|$)){0,6}(?!\n)$"

_Text = Annotated[str, Meta(max_length=MAX_TEXT)]
_Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
_Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A decision; fields are named as in ``DecisionRecord``.

    ``age_s`` is from the decision to the making of the rollup. Numbers that a log does not have, or
    that are none, are None.
    """

    age_s: Annotated[float, Meta(ge=0, le=MAX_AGE_S)]
    region: _Text
    site: _Text
    tier: _Text
    request_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARACTERS)]
    hop: Annotated[int, Meta(ge=0, le=MAX_HOP)]
    model: _Text
    model_version: _Text
    action: _Text
    decided_because: _Text
    outcome: _Text
    reason: _Text
    answered_by: _Text
    label: Annotated[int, Meta(ge=0, le=MAX_LABEL)] | None
    confidence: _Share | None
    remaining_ms: _Number | None
    latency_ms: _Number | None
    service_us: _Count
    sent_bytes: _Count
    propensity: _Share = 1.0
    policy: _Text = ""
    gear: _Text = ""
    score: _Number | None = None
    route: _Text = ""
    gain: _Number | None = None
    cost: _Number | None = None
    chance: _Number | None = None
    guarantee: _Text = "none"
    seen: Annotated[str, Meta(max_length=400, pattern=SEEN_PATTERN)] = ""
    budget_ms: _Number | None = None
    audit_chance: _Share = 0.0
    rule: _Text = ""
    forwarded: _Text = ""


SAMPLE_FIELDS = tuple(Sample.__struct_fields__)
Place = tuple[str, str, str]


def place_of(sample: Sample) -> Place:
    """Region, site and tier."""
    return sample.region, sample.site, sample.tier


def name_of(sample: Sample) -> tuple[str, str, str, str]:
    """What no two samples have in common; a later one of the same name takes its place."""
    return sample.request_id, sample.region, sample.site, sample.tier


def is_request_id(text: str) -> bool:
    """Whether a caller may have chosen it."""
    return 0 < len(text) <= MAX_ID_CHARACTERS and text.isprintable()


def size_of(sample: Sample) -> int:
    """Its bytes as JSON."""
    return len(msgspec.json.encode(sample))
