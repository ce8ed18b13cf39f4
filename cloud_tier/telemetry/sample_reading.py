"""Looks up decisions that are told whole, and counts all decisions by what they have in common.

What it gives has the names of a decision log, so that logs and samples can be told together.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, func, select, tuple_

from cloud_tier.operators.log_reading import COLUMNS, FACETS, FILTERS
from cloud_tier.telemetry.asking import NO_VALUE, Condition, question
from cloud_tier.telemetry.bounded import Bounds, limited, too_late
from cloud_tier.telemetry.database import chunks, reading
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.reading import answer
from cloud_tier.telemetry.rows import CostRow
from cloud_tier.telemetry.tables import samples
from runtime.decision_sample import Sample
from runtime.errors import StorageError
from runtime.messages import Residency
from runtime.ports import DecisionRecord

MAX_RECORDS = 100
# Groups of decisions that are added up for the bars of the explorer.
MAX_GROUPS = 100_000
_MOST_BARS = 30
_OWN = frozenset({"age_s"})


class SampleReader:
    """Reads what telemetry keeps of single requests; for threads.

    Args:
        engine: of telemetry's database.
        retention: what is kept.
        wall_s: seconds since 1970.
        bounds: what one question may take.
    """

    def __init__(
        self,
        engine: Engine,
        retention: Retention,
        *,
        wall_s: Callable[[], float],
        bounds: Bounds | None = None,
    ) -> None:
        self._engine, self._retention, self._wall_s = engine, retention, wall_s
        self._bounds = bounds or Bounds()

    def num(self) -> int:
        """How many samples there are.

        Raises:
            StorageError: the database does not answer.
            TooLateError: it took longer than a question may.
        """
        with self._asked() as connection:
            return int(connection.execute(select(func.count()).select_from(samples)).scalar_one())

    def page(
        self, wanted: Mapping[str, str], after: tuple[float, str] | None, limit: int
    ) -> list[dict[str, Any]]:
        """The newest that are as wanted, after a place (instant and id); raises as ``num`` does."""
        columns = samples.c
        query = select(columns.wall_s, columns.body)
        for name, value in wanted.items():
            if name != "label":
                query = query.where(columns[FILTERS[name]] == value)
            elif value.isascii() and value.isdigit() and len(value) < 18:  # noqa: PLR2004 of 64 bits
                query = query.where(columns.label == int(value))
            else:
                return []
        if after is not None:
            query = query.where(tuple_(columns.wall_s, columns.request_id) < after)
        query = query.order_by(columns.wall_s.desc(), columns.request_id.desc()).limit(limit)
        with self._asked() as connection:
            return [_line(row.wall_s, row.body) for row in connection.execute(query)]

    def first_hops(self, ids: Sequence[str]) -> dict[str, int]:
        """The hop of the lowest tier with a sample of each request; raises as ``num`` does."""
        found: dict[str, int] = {}
        name, hop = samples.c.request_id, func.min(samples.c.hop)
        with self._asked() as connection:
            for some in chunks(ids):
                query = select(name, hop).where(name.in_(some)).group_by(name)
                found.update((row[0], row[1]) for row in connection.execute(query))
        return found

    def records(self, request_id: str) -> list[DecisionRecord]:
        """The samples of a request as decisions, the newest first; raises as ``num`` does."""
        query = (
            select(samples.c.wall_s, samples.c.body)
            .where(samples.c.request_id == request_id)
            .order_by(samples.c.wall_s.desc(), samples.c.digest)
            .limit(MAX_RECORDS)
        )
        with self._asked() as connection:
            return [record_of(row.wall_s, row.body) for row in connection.execute(query)]

    def facets(self, wanted: Mapping[str, str], since_s: float) -> dict[str, Any]:
        """All decisions that are as wanted, by each of ``FACETS``, and how many of them climbed.

        Raises:
            RequestError: too much would have to be read.
            StorageError: the database does not answer.
            TooLateError: it took longer than a question may.
        """
        now_s = self._wall_s()
        # With the minute that has just begun.
        until_s = now_s + 1
        words = {"since": str(max(0.0, since_s)), "until": str(until_s), "by": ",".join(FACETS)}
        asked = question("cost", words, now_s=now_s, retention=self._retention)
        others = {name: value for name, value in wanted.items() if name != "action"}
        asked = asked._replace(
            where=tuple(Condition(name, (value,)) for name, value in others.items()),
            order="group",
            limit=MAX_GROUPS,
        )
        report = answer(self._engine, asked, now_s=now_s, bounds=self._bounds)
        counts: dict[str, Counter[str]] = {name: Counter() for name in FACETS}
        total = Counter[str]()
        for row in report.rows:
            if not isinstance(row, CostRow):
                raise TypeError("costs are told in their own rows")
            num = _num_of(row, wanted.get("action", ""))
            total["decisions"] += num
            total["escalated"] += 0 if wanted.get("action") == "answer" else row.escalated
            for name in FACETS:
                value = row.group[name]
                counts[name]["" if value == NO_VALUE else value] += num
        return {
            "since_s": float(asked.since_s),
            "decisions": total["decisions"],
            "escalated": total["escalated"],
            "facets": {
                name: [
                    {"value": value, "count": count}
                    for value, count in found.most_common(_MOST_BARS)
                    if count
                ]
                for name, found in counts.items()
            },
            "problems": [],
        }

    @contextmanager
    def _asked(self) -> Iterator[Connection]:
        deadline_s = time.monotonic() + self._bounds.timeout_s
        is_over = threading.Event()
        try:
            with (
                reading(self._engine) as connection,
                limited(connection, self._bounds, is_over),
            ):
                yield connection
        except StorageError:
            if is_over.is_set() or time.monotonic() >= deadline_s:
                raise too_late(self._bounds) from None
            raise


def record_of(wall_s: float, body: bytes) -> DecisionRecord:
    """A sample as the decision that it is of."""
    said = msgspec.structs.asdict(msgspec.json.decode(body, type=Sample))
    values = {name: value for name, value in said.items() if name not in _OWN}
    # What a log of an earlier version does not say is None there, too.
    return DecisionRecord(wall_s=wall_s, residency=Residency.CLOUD.value, **values)


def _num_of(row: CostRow, action: str) -> int:
    if action == "escalate":
        return row.escalated
    return row.requests - row.escalated if action == "answer" else row.requests


def _line(wall_s: float, body: bytes) -> dict[str, Any]:
    record = record_of(wall_s, body)
    return {name: getattr(record, name) for name in COLUMNS}
