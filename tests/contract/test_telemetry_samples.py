"""What the store promises of decisions that are told whole, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloud_tier.telemetry.bounded import Bounds
from cloud_tier.telemetry.database import is_alone, writing
from cloud_tier.telemetry.intake import DAY_S
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.sample_reading import SampleReader
from cloud_tier.telemetry.store import TelemetryStore
from fakes.postgres import Postgres
from fakes.samples import climbed, sample
from fakes.telemetry import NOW_S, audit, escalated, item, row, source
from runtime.decision_sample import Sample
from runtime.errors import MalformedBodyError, RequestError, StorageError, TooLateError
from runtime.telemetry import Rollup

pytestmark = pytest.mark.timeout(90)


class Kept:
    """A store and who reads its samples; time is given."""

    def __init__(self, url: str, **retention: Any) -> None:
        self.now_s = NOW_S
        self.retention = Retention(**retention)
        self.store = TelemetryStore(url, wall_s=lambda: self.now_s, retention=self.retention)
        self.reader = self.reads()

    def reads(self, **bounds: Any) -> SampleReader:
        return SampleReader(
            self.store.engine, self.retention, wall_s=lambda: self.now_s, bounds=Bounds(**bounds)
        )

    async def take(self, *some: Sample, first: int = 1, origin: str = "eu/cam-1") -> str:
        site = some[0].site
        place = source(first + len(some) - 1, first, site=site, tier=some[0].tier)
        rows = (row(len(some), site=site, tier=some[0].tier),)
        return await self.store.apply(item(Rollup((place,), rows, samples=some), origin=origin))

    async def prune(self) -> None:
        while await self.store.prune(50):
            pass

    def ids(self, **wanted: str) -> list[str]:
        return [one["request_id"] for one in self.reader.page(wanted, None, 1000)]


Opener = Callable[..., Kept]


@pytest.fixture
def open_kept(url: str) -> Iterator[Opener]:
    with ExitStack() as stack:

        def opened(**retention: Any) -> Kept:
            kept = Kept(url, **retention)
            stack.callback(kept.store.close)
            return kept

        yield opened


async def test_a_sample_is_there_once_however_often_and_by_whom_it_comes(
    open_kept: Opener,
) -> None:
    kept = open_kept()
    said = Rollup((source(2),), (row(2),), samples=(sample(age_s=10.0), climbed("r2")))

    for origin in ("cloud/gw-1", "cloud/gw-2"):
        sent = item(said, origin=origin)
        assert [await kept.store.apply(sent), await kept.store.apply(sent)] == ["stored", "known"]

    assert kept.ids() == ["r2", "r1"]
    (found,) = kept.reader.records("r1")
    assert (found.wall_s, found.site, found.label, found.residency) == (
        NOW_S - 10, "cam-1", 3, "cloud",
    )  # fmt: skip
    assert kept.reader.num() == 2


async def test_a_later_sample_of_a_tier_takes_the_place_of_the_one_before(
    open_kept: Opener,
) -> None:
    kept = open_kept()
    await kept.take(sample(label=1))
    await kept.take(sample(label=2), first=2)
    await kept.take(sample(tier="regional", site="gw-1", hop=1), origin="cloud/gw-1")

    assert [one.label for one in kept.reader.records("r1") if one.hop == 0] == [2]
    assert kept.reader.first_hops(["r1", "r9"]) == {"r1": 0}
    assert kept.reader.num() == 2


async def test_samples_are_found_by_every_filter_and_page_by_page(open_kept: Opener) -> None:
    kept = open_kept()
    await kept.take(
        *(sample(f"a{one}", age_s=float(one)) for one in range(5)),
        climbed("b", age_s=50.0, label=None, model="m2", model_version="2"),
    )

    assert kept.ids() == ["a0", "a1", "a2", "a3", "a4", "b"]
    for name, value in {
        "reason": "unsure", "end_reason": "confident", "region": "eu", "site": "cam-1",
        "tier": "edge", "model": "m2", "version": "2", "outcome": "answered",
        "answered_by": "cloud", "action": "escalate",
    }.items():  # fmt: skip
        assert "b" in kept.ids(**{name: value}), name
        assert kept.ids(**{name: "other"}) == [], name
    assert len(kept.ids(label="3")) == 5
    assert kept.ids(label="x") == kept.ids(label="9" * 30) == []
    first = kept.reader.page({}, None, 2)
    after = (first[-1]["wall_s"], first[-1]["request_id"])
    assert [one["request_id"] for one in kept.reader.page({}, after, 2)] == ["a2", "a3"]


async def test_samples_go_by_age_and_by_number_and_no_site_drives_out_the_others(
    open_kept: Opener,
) -> None:
    kept = open_kept(max_samples=100, sample_s=DAY_S)
    await kept.take(*(sample(f"q{one}", site="cam-2") for one in range(5)), origin="eu/cam-2")
    await kept.take(*(sample(f"l{one:03}", age_s=float(one)) for one in range(200)))
    await kept.prune()

    assert kept.reader.num() == 100
    assert len(kept.ids(site="cam-2")) == 5
    assert max(one for one in kept.ids(site="cam-1")) == "l094"
    for at in range(30):
        await kept.take(
            *(sample(f"{at}-{one}", site=f"x-{at}") for one in range(4)), origin=f"eu/x-{at}"
        )
    await kept.prune()
    assert kept.reader.num() == 100
    assert len(kept.ids(site="cam-1")) == 5
    kept.now_s += DAY_S + 60
    await kept.prune()
    assert kept.reader.num() == 0


async def test_switched_off_none_is_kept_and_all_is_counted(open_kept: Opener) -> None:
    kept = open_kept(max_samples=0)

    await kept.take(sample())

    assert kept.reader.num() == 0
    assert kept.reader.facets({}, NOW_S - 60)["decisions"] == 1


async def test_times_that_cannot_be_are_moved_to_where_they_can(open_kept: Opener) -> None:
    kept = open_kept()
    said = Rollup((source(2),), (row(2),), samples=(sample(age_s=1e9), sample("r\u0301x")))
    await kept.store.apply(item(said, at_s=NOW_S + 1e6))

    assert [one["wall_s"] for one in kept.reader.page({}, None, 9)] == [NOW_S, NOW_S - 35 * DAY_S]


async def test_who_may_not_speak_for_a_site_leaves_no_sample(open_kept: Opener) -> None:
    kept = open_kept()

    with pytest.raises(MalformedBodyError, match="may not speak"):
        await kept.take(sample(), origin="us/cam-9")

    assert kept.reader.num() == 0


async def test_bars_count_every_decision_of_minutes_and_hours(open_kept: Opener) -> None:
    kept = open_kept()
    rows = (
        row(50), escalated(30), row(20, label="", decided="local_failed", outcome="failed"),
        row(5, minutes_ago=200, model="old"),
    )  # fmt: skip
    await kept.store.apply(item(Rollup((source(105),), rows)))
    while await kept.store.add_up():
        pass
    await kept.store.apply(
        item(
            Rollup((source(7, tier="cloud", site="c"),), (row(7, tier="cloud", site="c"),)),
            origin="",
        )
    )

    def counts(facet: str, since_s: float = 7200.0, **wanted: str) -> dict[str, int]:
        found = kept.reader.facets(wanted, NOW_S - since_s)
        return {one["value"]: one["count"] for one in found["facets"][facet]}

    total = kept.reader.facets({}, NOW_S - 7200)
    assert (total["decisions"], total["escalated"]) == (107, 30)
    assert counts("tier") == {"edge": 100, "cloud": 7}
    assert counts("label") == {"3": 87, "": 20}
    assert counts("reason", outcome="failed") == {"local_failed": 20}
    assert counts("answered_by", action="escalate") == {"cloud": 30}
    assert counts("answered_by", action="answer") == {"edge": 77}
    assert counts("model", since_s=DAY_S) == {"fashion": 107, "old": 5}
    assert counts("model", label="a,b|c") == {}
    answered = kept.reader.facets({"action": "answer"}, NOW_S - 7200)
    assert (answered["decisions"], answered["escalated"]) == (77, 0)


async def test_samples_are_deleted_by_one_process_at_a_time(postgres: Postgres) -> None:
    with ExitStack() as stack:
        kept = Kept(stack.enter_context(postgres.database()), max_samples=1)
        stack.callback(kept.store.close)
        await kept.take(sample(), sample("r2"))
        with writing(kept.store.engine) as other:
            assert is_alone(other)
            while_other = await kept.store.prune()
        afterwards = await kept.store.prune()

    assert (while_other, afterwards) == (0, 1)


async def test_a_question_about_samples_has_bounds(open_kept: Opener) -> None:
    kept = open_kept()
    await kept.take(sample(), climbed("r2"))

    with pytest.raises(TooLateError, match="longer than"):
        kept.reads(timeout_s=0.0).facets({}, NOW_S - 60)
    with pytest.raises(RequestError, match="rows"):
        kept.reads(max_rows=0).facets({}, NOW_S - 60)


async def test_a_sign_of_life_and_late_audits_are_taken(open_kept: Opener) -> None:
    kept = open_kept()
    await kept.take(sample())

    life = await kept.store.apply(item(Rollup((source(1, 2),))))
    late = await kept.store.apply(item(Rollup((source(1, 2),), audits=(audit(),))))

    assert (life, late) == ("stored", "stored")
    with kept.store.engine.connect() as connection:
        said = "SELECT sum(agreed + disagreed) FROM audits"
        assert connection.exec_driver_sql(said).scalar_one() == 10


async def test_a_database_that_is_away_says_so(tmp_path: Path) -> None:
    kept = Kept(f"sqlite:///{tmp_path / 't.sqlite'}")
    kept.store.close()
    (tmp_path / "t.sqlite").unlink()

    with pytest.raises(StorageError, match="no such table"):
        kept.reader.num()
