"""The store of telemetry against models that are trivially right."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Table, func, select

from cloud_tier.telemetry import sketches, tables
from cloud_tier.telemetry.coverage import MAX_GAPS, Coverage, num_missing
from cloud_tier.telemetry.cuts import CUTS, Cut
from cloud_tier.telemetry.database import writing
from cloud_tier.telemetry.downsampling import add_up
from cloud_tier.telemetry.intake import MINUTE_S
from cloud_tier.telemetry.intervals import weighted, wilson
from cloud_tier.telemetry.shortening import fold
from cloud_tier.telemetry.sketches import MAX_COUNT, Tally, compact, pack, unpack
from cloud_tier.telemetry.store import TelemetryStore
from fakes.telemetry import NOW_S, item, rollup, row
from runtime.core.sketch import added, bucket_of, quantile

RANGES = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted)
SKETCHES = st.dictionaries(st.integers(-2048, 4096), st.integers(1, 3 * MAX_COUNT), max_size=30)


@given(st.lists(RANGES, max_size=30))
def test_coverage_knows_which_numbers_came(ranges: list[list[int]]) -> None:
    coverage, covered = Coverage(), set[int]()

    for first, last in ranges:
        new = set(range(first, last + 1)) - covered
        coverage, num_new = coverage.added(first, last)
        covered |= new
        assert num_new == len(new)
        assert coverage.last == max(covered)
        gaps = {at for low, high, _ in coverage.gaps for at in range(low, high + 1)}
        assert gaps == set(range(1, coverage.last + 1)) - covered


def test_gaps_know_since_when_they_are_there() -> None:
    coverage, _ = Coverage().added(11, 20, 100.0)
    coverage, _ = coverage.added(31, 40, 200.0)
    coverage, _ = coverage.added(51, 60, 300.0)
    coverage, _ = coverage.added(25, 26, 400.0)

    # Of what was before the first that came, nobody knows whether it was to come.
    assert coverage.gaps == ((1, 10, 0.0), (21, 24, 200.0), (27, 30, 200.0), (41, 50, 300.0))
    assert num_missing(coverage.gaps, after_s=0.0, before_s=200.0) == 8
    assert num_missing(coverage.gaps, after_s=200.0, before_s=1e9) == 10
    with pytest.raises(ValueError, match="no range"):
        coverage.added(7, 6)


def test_of_too_many_gaps_the_oldest_is_given_up() -> None:
    coverage = Coverage()

    for number in range(2, 2 * MAX_GAPS + 20, 2):
        coverage, _ = coverage.added(number, number)

    assert len(coverage.gaps) == MAX_GAPS
    assert coverage.added(1, 1)[1] == 0


@given(st.lists(SKETCHES, max_size=5))
def test_packed_sketches_add_up_by_joining(sketches: list[dict[int, int]]) -> None:
    packed = [pack(one) for one in sketches]

    assert unpack(b"".join(packed)) == added(sketches)
    assert unpack(compact(packed)) == added(sketches)
    assert compact([compact(packed)]) == compact(packed)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 7, 900]), SKETCHES), max_size=12),
    st.integers(1, 6),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_a_tally_has_the_quantiles_of_each_sum(
    given_sketches: list[tuple[int, dict[int, int]]], size: int, shares: list[float]
) -> None:
    tally = Tally()
    for at in range(0, len(given_sketches), size):
        some = given_sketches[at : at + size]
        tally.add([group for group, _ in some], [pack(one) for _, one in some])
    sums = {
        group: added(one for of, one in given_sketches if of == group)
        for group, _ in given_sketches
    }

    found = tally.quantiles(901, shares)

    for group in (0, 1, 2, 3, 7, 900):
        assert found[group] == [quantile(sums.get(group, {}), share) for share in shares]


def test_a_tally_of_very_many_sketches_is_that_of_their_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sketches, "_MAX_ENTRIES", 50)
    monkeypatch.setattr(sketches, "_MAX_CELLS", 300)
    many = [{bucket: 1 + bucket % 3 for bucket in range(at, at + 20)} for at in range(60)]
    groups = [at % 5 for at in range(60)]
    tally = Tally()

    tally.add(groups, [pack(one) for one in many])
    found = tally.quantiles(5, [0.1, 0.5, 0.999])

    for group in range(5):
        total = added(one for at, one in zip(groups, many, strict=True) if at == group)
        assert found[group] == [quantile(total, share) for share in (0.1, 0.5, 0.999)]


@given(
    st.lists(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]),
)
def test_quantiles_of_merged_sketches_are_within_one_percent(
    parts: list[list[float]], share: float
) -> None:
    packed = [pack(Counter(bucket_of(value) for value in part)) for part in parts]
    everything = sorted(value for part in parts for value in part)

    found = quantile(unpack(compact(packed)), share)

    exact = everything[int(share * (len(everything) - 1))]
    assert found is not None
    assert abs(found - exact) <= 0.01 * exact


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_an_interval_holds_its_share(hits: int, misses: int) -> None:
    for found in (
        wilson(hits, hits + misses),
        weighted(hits * 5, (hits + misses) * 5, hits * 25, misses * 25),
    ):
        assert found is None or 0 <= found.low <= found.value <= found.high <= 1
        assert (found is None) == (hits + misses == 0)


class Resolutions(RuleBasedStateMachine):
    """Rows come in any order and late, and steps of adding up in between, some undone."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now_s, self.number, self.total = NOW_S, 1, Counter[int]()
        path = Path(self.folder.name) / "telemetry.sqlite"
        self.store = TelemetryStore(f"sqlite:///{path}", wall_s=lambda: self.now_s)

    @rule(
        rows=st.lists(
            st.tuples(st.integers(0, 3000), st.integers(1, 4), st.floats(0.1, 1e4)), min_size=1,
            max_size=4,
        )
    )  # fmt: skip
    def takes(self, rows: list[tuple[int, int, float]]) -> None:
        said = rollup(
            *(row(num, minutes_ago=ago, latency_ms=ms) for ago, num, ms in rows), first=self.number
        )
        sent = item(said, at_s=self.now_s)
        assert self.store.submit(sent).result(10) == "stored"
        assert self.store.submit(sent).result(10) == "known"
        self.number += sum(num for _, num, _ in rows)
        for _, num, ms in rows:
            self.total[bucket_of(ms)] += num

    @rule(max_rows=st.integers(1, 5))
    def adds_up(self, max_rows: int) -> None:
        with writing(self.store.engine) as connection:
            add_up(connection, self.now_s, max_rows)

    @rule(max_rows=st.integers(1, 5))
    def adds_up_and_crashes(self, max_rows: int) -> None:
        with self.store.engine.connect() as connection, connection.begin() as transaction:
            add_up(connection, self.now_s, max_rows)
            transaction.rollback()

    @rule(max_rows=st.integers(1, 12))
    def folds(self, max_rows: int) -> None:
        with writing(self.store.engine) as connection:
            fold(connection, max_rows)

    @rule(max_rows=st.integers(1, 12))
    def folds_and_crashes(self, max_rows: int) -> None:
        with self.store.engine.connect() as connection, connection.begin() as transaction:
            fold(connection, max_rows)
            transaction.rollback()

    @rule(hours=st.integers(1, 30))
    def waits(self, hours: int) -> None:
        self.now_s += hours * 3600

    @precondition(lambda self: self.total)
    @invariant()
    def totals_are_the_same(self) -> None:
        rest = self._total(tables.minute, only_left=True)
        assert self._total(tables.minute) == self.total
        assert self._total(tables.hour) + rest == self.total
        assert self._total(tables.day) + rest == self.total
        for cut in CUTS:
            new = self._total(tables.short_new, cut)
            for table in (tables.short_minute, tables.short_hour, tables.short_day):
                if table is not tables.short_minute or cut.finest_s == MINUTE_S:
                    assert self._total(table, cut) + new == self.total

    def _total(
        self, table: Table, cut: Cut | None = None, *, only_left: bool = False
    ) -> Counter[int]:
        where: list[Any] = [tables.NOT_ADDED] if only_left else []
        where += [table.c.cut == cut.number] if cut else []
        with self.store.engine.connect() as connection:
            found = connection.execute(select(table.c.latency).where(*where)).scalars().all()
            num = connection.execute(select(func.sum(table.c.count)).where(*where)).scalar_one()
        total = Counter(unpack(b"".join(found)))
        assert total.total() == (num or 0)
        return total

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestResolutions = Resolutions.TestCase
TestResolutions.settings = settings(max_examples=15, stateful_step_count=12)
