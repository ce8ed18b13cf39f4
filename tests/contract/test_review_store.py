"""What the store of reviews promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloud_tier.reviews import looking
from cloud_tier.reviews.store import Bounds, ReviewStore
from cloud_tier.telemetry.database import open_engine
from fakes.review_reports import NOW_S, report, sent
from fakes.review_shop import Shop
from runtime.core.reviewing import LEASE_S, UNDO_S, Move
from runtime.errors import MalformedBodyError, StorageError, UnknownPageError
from runtime.messages import Correction, ItemKind, Outcome, Reason, Tensors, decode_control
from runtime.ports import OutboxItem

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Shop]:
    made = Shop(url)
    yield made
    made.close()


async def test_an_item_is_there_once_whoever_sends_it_twice(shop: Shop) -> None:
    one, again = sent(report("i1")), sent(report("i1"), item_id="another", sender="gw-2")

    outcomes = await asyncio.gather(*(shop.store.apply(item) for item in (one, one, again)))

    assert sorted(outcomes) == ["known", "known", "stored"]
    assert len(await looking.page(shop.store, [], limit=10)) == 1


async def test_what_is_no_report_is_refused(shop: Shop) -> None:
    for body in (b"", b"[]", b'{"item": "x"}', b'{"item":"a/b","request_id":"r"}'):
        with pytest.raises(MalformedBodyError):
            await shop.store.apply(OutboxItem("o", ItemKind.REVIEW, NOW_S, body))


@pytest.mark.parametrize("residency", ["device", "region", "", "moon"])
async def test_inputs_that_may_not_be_here_are_not_kept(shop: Shop, residency: str) -> None:
    await shop.put(report(residency=residency))

    row, _ = await shop.store.find("i1", with_body=True)
    assert row.body == b""
    # Nobody is given what nobody can see.
    assert await shop.next_item("ann") == ""


async def test_numbers_that_cannot_be_are_cut(shop: Shop) -> None:
    await shop.put(
        report(chance=-3.0, confidence=7.0, due_s=-1e12, label=77, header_length=2**30),
        at_s=NOW_S + 1e6,
    )

    row, _ = await shop.store.find("i1", with_body=True)
    assert (row.chance, row.confidence, row.label, row.value) == (0.0, 1.0, -1, 1.0)
    assert (row.at_s, row.due_s - row.at_s) == (NOW_S, 1.0)
    assert row.body == b""


async def test_what_is_due_is_given_out_first_then_what_is_worth_most(shop: Shop) -> None:
    await shop.put(report("sure", chance=0.9), report("unsure", chance=0.1))
    await shop.put(report("due", chance=0.99), at_s=NOW_S - 7200)

    given = [await shop.next_item(who) for who in ("ann", "bob", "cid", "dee")]

    assert given == ["due", "unsure", "sure", ""]


async def test_a_reload_finds_the_same_item_and_a_restart_too(shop: Shop) -> None:
    await shop.put(report("i1"), report("i2"))
    first = await shop.next_item("ann")
    again = await shop.next_item("ann")
    shop.again()
    later = await shop.next_item("ann")
    other = await shop.next_item("bob")

    assert first == again == later
    assert {first, other} == {"i1", "i2"}


async def test_a_lease_ends_and_the_item_is_given_to_others(shop: Shop) -> None:
    await shop.put(report("i1"))
    await shop.next_item("ann")
    held = await shop.next_item("bob")
    states = (await looking.counts(shop.store))["states"]
    shop.now_s += LEASE_S + 1
    ended = await looking.tidy(shop.store)
    waiting = (await looking.counts(shop.store))["states"]

    assert (held, ended) == ("", 1)
    assert (states, waiting) == ({"assigned": 1}, {"waiting": 1})
    assert await shop.next_item("bob") == "i1"


async def test_each_move_has_a_named_outcome_and_nothing_is_labelled_twice(shop: Shop) -> None:
    await shop.put(report("i1"))
    moves = [
        (await shop.store.give("i1", "ann", 2, spent_s=3.5)).move,
        (await shop.store.give("i1", "ann", 2)).move,
        (await shop.store.give("i1", "ann", 1)).move,
        (await shop.store.give("i1", "bob", 1)).move,
        (await shop.store.assign("i1", "bob")).move,
        (await shop.store.undo("i1", "bob")).move,
    ]

    assert moves == [Move.COUNTED, Move.KNOWN, Move.TWICE, Move.LATE, Move.LATE, Move.NOTHING]
    row, case = await shop.store.find("i1")
    assert (row.state, row.winner, case.labels[0].who) == ("labelled", 2, "ann")
    with pytest.raises(UnknownPageError):
        await shop.store.give("nothing", "ann", 1)


async def test_two_who_label_at_the_same_time_are_counted_once(shop: Shop) -> None:
    await shop.put(report("i1"))
    engine = open_engine(shop.url)
    other = ReviewStore(engine, Bounds(), wall_s=lambda: NOW_S)
    await other.find("i1")

    ends = await asyncio.gather(
        *(
            store.give("i1", who, label)
            for store, who, label in ((shop.store, "ann", 0), (other, "bob", 1))
        )
    )
    other.close()
    engine.dispose()

    assert sorted(one.move for one in ends) == [Move.COUNTED, Move.LATE]


async def test_undone_within_ten_seconds_and_marked_as_seen(shop: Shop) -> None:
    await shop.put(report("i1"))
    await shop.store.give("i1", "ann", 2)
    undone = await shop.store.undo("i1", "ann")
    back = await shop.next_item("ann")
    await shop.store.give("i1", "ann", 1)
    shop.now_s += UNDO_S + 0.5
    late = await shop.store.undo("i1", "ann")

    assert (undone.move, back, late.move) == (Move.UNDONE, "i1", Move.LATE)
    row, _ = await shop.store.find("i1")
    assert row.winner == 1
    with shop.engine.connect() as connection:
        (revised,) = connection.exec_driver_sql("SELECT revised FROM review_given").one()
    assert revised


async def test_two_who_are_wanted_agree_or_a_third_settles_it(shop: Shop) -> None:
    shop.again(wanted=2)
    await shop.put(report("i1"), report("i2"))
    for who, item, label in (
        ("ann", "i1", 0), ("ann", "i2", 1), ("bob", "i1", 0), ("bob", "i2", 2), ("eve", "i2", 2),
    ):  # fmt: skip
        assert (await shop.store.give(item, who, label)).move is Move.COUNTED
        if (who, item) == ("bob", "i2"):
            assert (await looking.counts(shop.store))["states"] == {"agreed": 1, "disputed": 1}

    first, second = await looking.page(shop.store, ["agreed"], limit=10)
    pairs = await looking.agreement(shop.store)
    assert (first.winner, second.winner) == (0, 2)
    assert [(one.first, one.second, one.num_items, one.num_agreed) for one in pairs] == [
        ("ann", "bob", 2, 1), ("ann", "eve", 1, 0), ("bob", "eve", 1, 1),
    ]  # fmt: skip


async def test_who_has_skipped_an_item_is_not_given_it_again(shop: Shop) -> None:
    await shop.put(report("i1"))
    await shop.store.give("i1", "ann", None, why="too dark")

    assert await shop.next_item("ann") == ""
    assert await shop.next_item("bob") == "i1"


async def test_the_store_is_bounded_and_the_least_valuable_goes(shop: Shop) -> None:
    shop.again(max_items=3)
    await shop.put(*(report(f"i{n}", chance=n / 10) for n in range(1, 4)))
    await shop.store.give("i3", "ann", 1)
    await shop.put(report("i4", chance=0.15))

    names = [row.item for row in await looking.page(shop.store, [], limit=10)]
    assert names == ["i1", "i3", "i4"]
    with shop.engine.connect() as connection:
        (num,) = connection.exec_driver_sql(
            "SELECT count FROM notes WHERE name = 'reviews dropped for room'"
        ).one()
    assert num == 1

    big: Tensors = {"x": np.zeros((1, 40_000), np.float32)}
    shop.again(max_bytes=400_000)
    await shop.put(*(report(f"b{n}", big, chance=0.5) for n in range(5)))
    sizes = [row.num_bytes for row in await looking.page(shop.store, [], limit=10)]
    assert sum(sizes) <= 400_000


async def test_what_nobody_looked_at_is_over_and_its_inputs_are_gone(shop: Shop) -> None:
    await shop.put(report("i1"))
    shop.now_s += 2_592_001
    await looking.tidy(shop.store)

    row, _ = await shop.store.find("i1", with_body=True)
    assert (row.state, row.body) == ("expired", b"")
    assert (await shop.store.give("i1", "ann", 1)).move is Move.LATE
    assert await looking.tidy(shop.store) == 0


async def test_ages_are_counted_for_alarms(shop: Shop) -> None:
    await shop.put(report("new"))
    await shop.put(report("half"), at_s=NOW_S - 2000)
    await shop.put(report("late"), at_s=NOW_S - 3601)

    counts = await looking.counts(shop.store)

    assert (counts["half"], counts["overdue"]) == (1, 1)
    assert counts["oldest_s"] == pytest.approx(3601)


async def test_a_label_becomes_feedback_and_a_correction_once(shop: Shop) -> None:
    await shop.put(report("i1"))
    await shop.store.give("i1", "ann", 2)
    early = await shop.outcomes.tell()
    shop.now_s += UNDO_S + 2
    told = await shop.outcomes.tell()
    shop.again()
    again = await shop.outcomes.tell()

    assert (early, told, again) == (0, 2, 0)
    (said,) = shop.feedback
    body = msgspec.json.decode(said.body)
    assert (body["request_id"], body["label"], body["label_name"]) == ("r-i1", 2, "owl")
    assert body["answered"]["label"] == 1
    assert said.origin == "plant/agent-1"
    (sent_down,) = shop.corrections
    correction = decode_control(sent_down.body)
    assert isinstance(correction, Correction)
    assert (sent_down.target, correction.to) == ("gw-1", "plant/agent-1")
    assert (correction.gateway, correction.item) == ("cloud-1", sent_down.id)
    assert (correction.said.label_name, correction.said.reason) == ("owl", Reason.REVIEW)
    assert correction.was is not None
    assert correction.was.label == 1
    assert (await shop.store.undo("i1", "ann")).move is Move.LATE


async def test_a_correction_that_has_no_room_is_sent_later(shop: Shop) -> None:
    await shop.put(report("i1"))
    await shop.store.give("i1", "ann", 2)
    shop.now_s += UNDO_S + 2
    shop.says = "full"
    await shop.outcomes.tell()
    none = list(shop.corrections)
    shop.says = "stored"
    await shop.outcomes.tell()

    assert (none, len(shop.corrections)) == ([], 1)


async def test_the_caller_of_an_item_above_hears_of_it_also_when_it_says_so_late(
    shop: Shop,
) -> None:
    above = report("i1", tier="cloud", site="cloud-1", region="cloud", source="policy")
    await shop.put(above, origin="cloud/cloud-1", sender="")
    await shop.store.give("i1", "ann", 0)
    shop.now_s += UNDO_S + 2
    await shop.outcomes.tell()
    none = list(shop.corrections)
    waits = report("c1", request_id="r-i1", source="caller", outcome="degraded", body=b"")
    outcomes = await shop.put(waits, waits)
    await shop.outcomes.tell()
    await shop.outcomes.tell()

    assert (none, outcomes) == ([], ["stored", "known"])
    (sent_down,) = shop.corrections
    correction = decode_control(sent_down.body)
    assert isinstance(correction, Correction)
    assert correction.to == "plant/agent-1"
    assert correction.was is not None
    assert correction.was.outcome is Outcome.DEGRADED


async def test_a_database_that_is_away_is_said_so(tmp_path: Path) -> None:
    folder = tmp_path / "telemetry.sqlite"
    folder.mkdir()
    engine = open_engine(f"sqlite:///{folder}")
    store = ReviewStore(engine, Bounds())

    with pytest.raises(StorageError):
        await store.next("ann")
    store.close()
    engine.dispose()
