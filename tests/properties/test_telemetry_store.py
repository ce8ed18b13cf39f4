"""The store of telemetry against models that are trivially right."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import Table, func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.coverage import MAX_GAPS, Coverage
from cloud_tier.telemetry.database import writing
from cloud_tier.telemetry.downsampling import add_up
from cloud_tier.telemetry.intervals import weighted, wilson
from cloud_tier.telemetry.sketches import MAX_COUNT, compact, pack, unpack
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
        gaps = {at for low, high in coverage.gaps for at in range(low, high + 1)}
        assert gaps == set(range(1, coverage.last + 1)) - covered


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

    def _total(self, table: Table, *, only_left: bool = False) -> Counter[int]:
        where = [tables.NOT_ADDED] if only_left else []
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
