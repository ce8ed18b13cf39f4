"""Decision logs of this machine and samples of all tiers, told as one.

Rules of this file:
  * a request is shown once: by the decision of the lowest tier that a log or a sample has of it;
    where both have it, by the log's;
  * of several devices that were asked under one id, the story is of one, and says so;
  * samples that cannot be read are named and left out, as logs are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cloud_tier.operators.log_reading import first_hops, newest
from runtime.adapters.explain_query import find_decisions
from runtime.core.reasons import plain
from runtime.core.story import height
from runtime.errors import TierwiseError
from runtime.ports import DecisionRecord

Row = dict[str, Any]
# The instant of a decision, in s since 1970, and the id of its request.
At = tuple[float, str]


class Samples(Protocol):
    """Single decisions of all tiers; every method may raise ``TierwiseError``."""

    def num(self) -> int:
        """How many there are."""
        ...

    def page(self, wanted: Mapping[str, str], after: At | None, limit: int) -> list[Row]:
        """The newest that are as wanted, as rows of a log."""
        ...

    def first_hops(self, ids: Sequence[str]) -> dict[str, int]:
        """The lowest hop that is known of each request."""
        ...

    def records(self, request_id: str) -> list[DecisionRecord]:
        """Decisions about a request, the newest first."""
        ...

    def facets(self, wanted: Mapping[str, str], since_s: float) -> dict[str, Any]:
        """Counts of all decisions."""
        ...


class Records(NamedTuple):
    """Decisions about a request, the lowest tier first, and what is to be said beside them."""

    records: tuple[DecisionRecord, ...]
    notes: tuple[str, ...] = ()


class Page(NamedTuple):
    """Requests, the newest first, where the next page begins, and what could not be read."""

    rows: list[Row]
    after: At | None
    problems: list[str]


def page(
    paths: Sequence[Path],
    samples: Samples | None,
    wanted: Mapping[str, str],
    after: At | None,
    limit: int,
) -> Page:
    """At most so many requests that are as wanted, after a place; fewer though there are more."""
    most = 2 * limit + 2
    logged = [newest([path], wanted, after, most) for path in paths]
    problems = [text for found in logged for text in found.problems]
    sampled: list[Row] = []
    low: dict[str, int] = {}
    try:
        if samples is not None:
            sampled = samples.page(wanted, after, most)
            low = samples.first_hops(_ids([*(one.rows for one in logged), sampled]))
    except TierwiseError as error:
        problems.append(f"samples of other tiers: {error}")
        sampled, low = [], {}
    pieces = [*(one.rows for one in logged), sampled]
    # Beyond the last row that was read of one, nothing is told of the others.
    horizon = max((_at(rows[-1]) for rows in pieces if len(rows) >= most), default=None)
    in_logs = first_hops(paths, _ids(pieces)) if sampled or len(paths) > 1 else {}
    rows = [row for one in logged for row in one.rows if row["hop"] <= _low(row, in_logs, low)]
    rows += [row for row in sampled if _is_shown(row, in_logs, low)]
    rows.sort(key=_at, reverse=True)
    shown: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if horizon is None or _at(row) >= horizon:
            shown.setdefault(_name(row), row)
    found = list(shown.values())
    if len(found) > limit:
        return Page(found[:limit], _at(found[limit - 1]), problems)
    return Page(found, horizon, problems)


def _ids(pieces: Sequence[Sequence[Row]]) -> list[str]:
    return sorted({row["request_id"] for rows in pieces for row in rows})


def _at(row: Row) -> At:
    return row["wall_s"], row["request_id"]


def _name(row: Row) -> tuple[object, ...]:
    """What tells requests apart: two devices may be asked under one id."""
    return row["request_id"], row["region"], row["site"]


def _low(row: Row, *known: Mapping[str, int]) -> int:
    name = row["request_id"]
    return min(one.get(name, row["hop"]) for one in known)


def _is_shown(row: Row, in_logs: Mapping[str, int], low: Mapping[str, int]) -> bool:
    """Whether a sample is, and no log has the request from as low."""
    in_log = in_logs.get(row["request_id"])
    return row["hop"] <= _low(row, low) and (in_log is None or row["hop"] < in_log)


def find(
    paths: Sequence[Path], samples: Samples | None, request_id: str, *, site: str = ""
) -> Records:
    """What logs and samples have about a request; of several, that of a site or the newest.

    Raises:
        StartError: a log cannot be read.
    """
    logged = find_decisions(paths, request_id)
    notes: list[str] = []
    by_place = {(one.tier, one.region, one.site): one for one in logged}
    try:
        for one in () if samples is None else samples.records(request_id):
            by_place.setdefault((one.tier, one.region, one.site), one)
    except TierwiseError as error:
        notes.append(f"Note: samples of other tiers cannot be read now: {error}")
    records = sorted(by_place.values(), key=lambda one: (height(one.tier), one.hop, one.site))
    entries = [one for one in records if one.hop == 0]
    if len(entries) > 1:
        entry = max(entries, key=lambda one: (one.site == site, one.wall_s))
        others = ", ".join(plain(one.site) for one in entries if one is not entry)
        notes.append(
            f"Note: {others} had a request with this id, too; what tiers above say may be of "
            "either."
        )
        records = [one for one in records if one.hop > 0 or one is entry]
    return Records(tuple(records), tuple(notes))
