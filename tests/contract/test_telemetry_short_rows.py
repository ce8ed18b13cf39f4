"""Short rows answer as whole rows do, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.asking import Question, question
from cloud_tier.telemetry.cuts import CUTS, cut_of
from cloud_tier.telemetry.database import writing
from cloud_tier.telemetry.downsampling import add_up
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.migrating import migrating_with, schema_state
from cloud_tier.telemetry.reading import answer
from cloud_tier.telemetry.rows import CostRow, Report, Row
from cloud_tier.telemetry.shortening import fold
from cloud_tier.telemetry.store import TelemetryStore
from fakes.telemetry import NOW_S, escalated, item, row, source
from runtime.telemetry import Rollup, RollupRow

pytestmark = pytest.mark.timeout(120)
# Series that differ in what each cut leaves out, and in what none does.
ROWS = st.builds(
    lambda climbs, num, **more: (escalated if climbs else row)(num, **more),
    climbs=st.booleans(),
    num=st.integers(1, 5),
    site=st.sampled_from(["cam-1", "cam-2"]),
    version=st.sampled_from(["1", "2"]),
    label=st.sampled_from(["", "3", "4"]),
    gear=st.sampled_from(["g1", "g2"]),
    tier=st.sampled_from(["edge", "regional"]),
    is_entry=st.booleans(),
    minutes_ago=st.integers(0, 3 * 24 * 60),
    latency_ms=st.floats(0.1, 1e4),
)
QUESTIONS = st.fixed_dictionaries(
    {
        "by": st.lists(
            st.sampled_from(
                ["tier", "region", "site", "version", "reason", "outcome", "label", "hour", "day"]
            ),
            max_size=3,
        ).map(",".join),
        "since": st.sampled_from(["1h", "3h", "25h", "3d", "4d"]),
        "until": st.sampled_from(["0s", "30m", "20h"]),
        "where": st.sampled_from(["", "version=1", "site!=cam-1", "label=3|none", "tier=edge"]),
    }
).filter(lambda words: not (words["since"] in {"1h", "3h"} and words["until"] == "20h"))
METRICS = st.sampled_from(["escalations", "latency", "cost", "rollouts"])


@pytest.fixture
def store(url: str) -> Iterator[TelemetryStore]:
    with TelemetryStore(url, wall_s=lambda: NOW_S) as store:
        yield store


def asked(metric: str, words: dict[str, str]) -> Question:
    return question(metric, words, now_s=NOW_S, retention=Retention())


def near(report: Report[Row]) -> Any:
    """What a report says, whose sums of floats are near those of another order."""

    def value_of(value: Any) -> Any:
        return pytest.approx(value, rel=1e-9) if isinstance(value, float) else value

    rows = [
        {name: value_of(value) for name, value in msgspec.structs.asdict(one).items()}
        for one in report.rows
    ]
    return [rows, report.next, report.notes]


def plain(report: Report[Row]) -> Any:
    return [[msgspec.structs.asdict(one) for one in report.rows], report.next, report.notes]


class Senders:
    """Numbers the decisions of each log, so that none counts as known."""

    def __init__(self) -> None:
        self.last: Counter[tuple[str, str]] = Counter()

    def send(self, store: TelemetryStore, rows: list[RollupRow]) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        for one in rows:
            counts[one.site, one.tier] += one.count
        sources = tuple(
            source(self.last[place] + num, self.last[place] + 1, site=place[0], tier=place[1])
            for place, num in counts.items()
        )
        self.last += counts
        sent = item(Rollup(sources, tuple(rows)), origin="cloud/gw-1")
        assert store.submit(sent).result(20) == "stored"


def test_the_answer_is_that_of_whole_rows(store: TelemetryStore) -> None:
    senders = Senders()

    # What comes is added to one store: whatever is in it, both ways have to say the same.
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(
        rows=st.lists(ROWS, max_size=6),
        folded=st.integers(0, 30),
        added=st.integers(0, 10),
        metric=METRICS,
        words=QUESTIONS,
    )
    def same(
        rows: list[RollupRow], folded: int, added: int, metric: str, words: dict[str, str]
    ) -> None:
        senders.send(store, rows)
        with writing(store.engine) as connection:
            fold(connection, folded)
            add_up(connection, NOW_S, added)
        wanted = asked(metric, {**words, "order": "group", "limit": "50"})

        short = answer(store.engine, wanted, now_s=NOW_S)
        whole = answer(store.engine, wanted, now_s=NOW_S, is_whole=True)

        assert plain(short) == near(whole)

    same()


async def test_short_rows_are_read_where_they_have_what_is_asked(store: TelemetryStore) -> None:
    Senders().send(store, [row(1, label=str(label)) for label in range(40)])
    words = {"by": "site", "since": "24h"}
    wanted = asked("cost", words)
    with writing(store.engine) as connection:
        connection.execute(tables.minute.delete())

    short = answer(store.engine, wanted, now_s=NOW_S)
    whole = answer(store.engine, wanted, now_s=NOW_S, is_whole=True)

    assert cut_of(wanted) is not None
    assert [one.requests for one in short.rows if hasattr(one, "requests")] == [40]
    assert whole.rows == []


@pytest.mark.parametrize("num", [1, 3, 4, 299, 256 + 32 + 4 + 1])
async def test_every_row_of_a_rollup_is_inserted(store: TelemetryStore, num: int) -> None:
    Senders().send(store, [row(at % 3 + 1, label=str(at)) for at in range(num)])

    report = answer(store.engine, asked("cost", {"by": "label"}), now_s=NOW_S)

    found = {one.group["label"]: one.requests for one in report.rows if isinstance(one, CostRow)}
    assert found == {str(at): at % 3 + 1 for at in range(num)}


async def test_folding_counts_each_row_once(store: TelemetryStore) -> None:
    senders = Senders()
    for ago in (0, 1, 70, 2000):
        senders.send(store, [row(1, minutes_ago=ago), row(2, minutes_ago=ago, label="7")])
    before = totals(store)
    with store.engine.connect() as connection, connection.begin() as transaction:
        fold(connection)
        transaction.rollback()
    steps = 0
    while num := await store.fold(max_rows=3):
        assert num <= 3
        assert totals(store) == before
        steps += 1

    assert steps > 3
    assert before == {(cut.number, name): 12 for cut in CUTS for name in ("hour", "day")} | {
        (cut.number, "minute"): 12 for cut in CUTS if cut.finest_s == 60
    }


def totals(store: TelemetryStore) -> dict[tuple[int, str], int]:
    """Decisions by cut and width, with those that are not folded."""
    found: dict[tuple[int, str], int] = {}
    with store.engine.connect() as connection:
        for cut in CUTS:
            widths = {"minute", "hour", "day"} if cut.finest_s == 60 else {"hour", "day"}
            for width in widths:
                of = (tables.metadata.tables[f"short_{width}"], tables.short_new)
                found[cut.number, width] = sum(
                    int(
                        connection.execute(
                            select(func.sum(table.c.count)).where(table.c.cut == cut.number)
                        ).scalar_one()
                        or 0
                    )
                    for table in of
                )
    return found


async def test_a_store_of_before_is_filled(url: str, store: TelemetryStore) -> None:
    senders = Senders()
    climbing = [escalated(2, minutes_ago=ago, site="cam-2") for ago in (3, 200, 3000)]
    senders.send(store, [row(3, minutes_ago=ago) for ago in (0, 1, 65, 1500)] + climbing)
    senders.send(store, [row(1, label="9", version="2", minutes_ago=ago) for ago in (0, 2000)])
    with writing(store.engine) as connection:
        # Some rows of an hour are in it, and some are not.
        add_up(connection, NOW_S, 3)
    questions = [
        asked(metric, {"by": by, "since": since, "order": "group"})
        for metric in ("latency", "escalations")
        for by in ("site", "version,tier", "label", "day")
        for since in ("2h", "50h", "80d")
    ]
    before = [near(answer(store.engine, one, now_s=NOW_S)) for one in questions]
    with migrating_with(store.engine) as config:
        command.downgrade(config, "0004-1")
    assert not schema_state(store.engine).is_current

    with TelemetryStore(url, wall_s=lambda: NOW_S) as later:
        after = [plain(answer(later.engine, one, now_s=NOW_S)) for one in questions]
        # What comes now finds the series that were made.
        senders.send(later, [row(1, label="9", version="2")])
        with later.engine.connect() as connection:
            query = select(func.count()).select_from(tables.short_series)
            num = connection.execute(query).scalar_one()

    assert schema_state(store.engine).is_current
    assert after == before
    assert num == 3 * len(CUTS)
