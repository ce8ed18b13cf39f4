"""By what rows of counts differ: a series is one tuple of all dimensions.

Whoever sends rollups chooses most of the words in them, so that the number of series needs a bound.
Over it a row keeps what questions of escalation need, all of it of closed vocabularies; the rest
becomes ``(other)``. So it is never lost, and counts in every total.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from runtime.messages import Outcome, Reason, Tier
from runtime.telemetry import DIMENSIONS, OTHER, RollupRow

_TIERS = frozenset(tier.value for tier in Tier)
_HEIGHTS = {tier.value: tier.height for tier in Tier}
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
_ACTIONS = frozenset({"answer", "escalate"})


class Series(NamedTuple):
    """One value for each dimension; the fields are those of ``RollupRow``."""

    region: str
    site: str
    tier: str
    model: str
    version: str
    policy: str
    gear: str
    route: str
    action: str
    decided: str
    outcome: str
    reason: str
    answered_by: str
    guarantee: str
    label: str
    is_entry: bool


def series_of(row: RollupRow) -> Series:
    """The series that a row belongs to; NUL, which PostgreSQL cannot keep, is left out."""
    words = {name: clean(getattr(row, name)) for name in DIMENSIONS if name != "is_entry"}
    return Series(**words, is_entry=row.is_entry)


def clean(text: str) -> str:
    """The text without what a database cannot keep."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def digest_of(*values: object) -> str:
    """Thirty-two hexadecimal digits, the same for the same values and for no others."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def folded(series: Series, *, with_site: bool) -> Series:
    """The series of what is too much: of its site, or of all sites together."""
    return Series(
        region=series.region if with_site else OTHER,
        site=series.site if with_site else OTHER,
        tier=_known(series.tier, _TIERS),
        model=OTHER,
        version=OTHER,
        policy=OTHER,
        gear=OTHER,
        route=OTHER,
        action=_known(series.action, _ACTIONS),
        decided=OTHER,
        outcome=_known(series.outcome, _OUTCOMES),
        reason=_known(series.reason, frozenset({Reason.LOWER_STANDS.value})),
        answered_by=_known(series.answered_by, _TIERS | {""}),
        guarantee=OTHER,
        label=OTHER,
        is_entry=series.is_entry,
    )


def _known(value: str, values: frozenset[str]) -> str:
    return value if value in values else OTHER


def is_from_above(tier: str, answered_by: str) -> bool:
    """Whether a tier above the one that decided gave the answer."""
    return _HEIGHTS.get(answered_by, -1) > _HEIGHTS.get(tier, len(_HEIGHTS))
