"""Reviews at the top of a hierarchy: what goes to people, and what the caller gets at once."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from fakes.decisions import write_log
from fakes.gears import SKIP, STRAIGHT, gearbox
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.reviews import REVIEW, ListQueue, item, reviewed
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend
from model_zoo.catalog import bundled_model, bundled_policy
from runtime.adapters.explain_query import find_decisions, story_of
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.policy_file import KnownPolicy, read_policy
from runtime.adapters.replay_log import read_recorded
from runtime.adapters.review_queue import MAX_WAITING, SqliteReviewQueue
from runtime.adapters.review_reader import find_items, waiting_in
from runtime.codec import decode_request
from runtime.common_settings import ModelSettings, StateSettings
from runtime.core.audit import AuditSettings
from runtime.errors import StartError
from runtime.exchange.course import Identity
from runtime.exchange.explaining import parse_story
from runtime.exchange.reviewing import Reviewer
from runtime.exchange.station import station
from runtime.messages import Answer, Guarantee, Outcome, Reason, Residency, Tier
from runtime.policy import Policy, digest_of, encode_policy
from runtime.ports import ReviewQueue, ReviewResult

ASKED = reviewed()
PICTURE: dict[str, Any] = {"x": np.array([[1.5, 2.5]], np.float32)}


def hierarchy(
    queue: ReviewQueue,
    followed: Policy = ASKED,
    top: tuple[float, ...] = UNSURE,
    **options: Any,
) -> tuple[FakeTier, FakeTier, FakeTier]:
    """Three tiers of one policy, all unsure."""
    broker = MemoryBroker()
    return (
        edge(broker, gearbox=gearbox(Tier.EDGE, followed), **options),
        gateway(broker, gearbox=gearbox(Tier.REGIONAL, followed)),
        cloud(broker, NumbersBackend(top), gearbox=gearbox(Tier.CLOUD, followed), reviews=queue),
    )


async def climbed(
    queue: ReviewQueue, *args: Any, **asked: Any
) -> tuple[Answer, tuple[FakeTier, ...]]:
    async with AsyncExitStack() as stack:
        tiers = hierarchy(queue, *args)
        await online(stack, *tiers)
        answer, _ = await ask(tiers[0], **{"inputs": PICTURE, **asked})
    return answer, tiers


def ended(answer: Answer) -> tuple[Outcome, Reason, Tier | None]:
    return answer.outcome, answer.reason, answer.tier


async def test_the_best_answer_goes_out_now_and_the_item_waits(tmp_path: Path) -> None:
    with SqliteReviewQueue(tmp_path) as queue:
        answer, (device, region, top) = await climbed(queue)

    assert ended(answer) == (Outcome.DEGRADED, Reason.REVIEW, Tier.CLOUD)
    assert answer.outputs["logits"].shape == (1, 3)
    # What was certified is this answer.
    assert answer.guarantee is Guarantee.CERTIFIED
    assert answer.hops[2].reason is Reason.REVIEW
    (one,) = find_items([queue.path], "q1")
    assert (one.tier, one.site, one.label_name, one.chance) == ("cloud", "cloud-1", "cat", 0.5)
    assert (one.model, one.model_version) == ("animals", "cloud-1")
    assert (one.policy, one.gear) == (top.flow.gearbox.digest, "g")
    assert one.due_s - one.wall_s == pytest.approx(60)
    assert msgspec.json.decode(one.answers) == [
        {"tier": "edge", "label": 0},
        {"tier": "regional", "label": 0},
        {"tier": "cloud", "label": 0, "score": answer.confidence},
    ]
    inputs = decode_request(one.body, one.header_length).inputs
    assert inputs["x"].tolist() == PICTURE["x"].tolist()
    assert top.counted('tierwise_cloud_review_items_total{result="queued"}') == 1
    (record,) = top.log.records
    assert (record.decided_because, record.cost) == ("review", 2.0)
    assert record.gain == pytest.approx(0.45)
    assert [tier.log.records[0].reason for tier in (device, region)] == ["review"] * 2


@pytest.mark.parametrize("followed", [SKIP, STRAIGHT])
async def test_however_a_request_came_to_the_top_it_may_be_reviewed(followed: Policy) -> None:
    queue = ListQueue()
    answer, _ = await climbed(queue, reviewed(followed))

    assert ended(answer) == (Outcome.DEGRADED, Reason.REVIEW, Tier.CLOUD)
    assert answer.guarantee is Guarantee.CERTIFIED
    assert len(queue.items) == 1


async def test_a_sure_answer_of_the_top_stands() -> None:
    queue = ListQueue()
    answer, _ = await climbed(queue, ASKED, SURE)

    assert answer.outcome is Outcome.ANSWERED
    assert queue.items == []


async def test_an_answer_from_below_is_nothing_to_review() -> None:
    queue = ListQueue()
    answer, _ = await climbed(queue, reviewed(review=msgspec.structs.replace(REVIEW, price=1e3)))

    assert ended(answer)[0] is Outcome.ANSWERED
    assert queue.items == []


@pytest.mark.parametrize("says", ["full", "busy", "failed", "unconfirmed"])
async def test_what_is_not_in_the_queue_is_not_said_to_be(says: ReviewResult) -> None:
    with capture_logs() as lines:
        answer, (_, _, top) = await climbed(ListQueue(says))

    assert ended(answer) == (Outcome.ANSWERED, Reason.TOP_TIER, Tier.CLOUD)
    assert top.counted(f'tierwise_cloud_review_items_total{{result="{says}"}}') == 1
    assert "review.not_queued" in [line["event"] for line in lines]


async def test_the_same_request_is_there_once(tmp_path: Path) -> None:
    with SqliteReviewQueue(tmp_path) as queue:
        first, _ = await climbed(queue)
        again, (_, _, top) = await climbed(queue)
        other, _ = await climbed(queue, inputs={"x": np.ones((1, 2), np.float32)})

        assert len(waiting_in([queue.path])) == 2
    assert ended(first) == ended(again) == ended(other)
    assert top.counted('tierwise_cloud_review_items_total{result="known"}') == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"inputs": {"x": np.ones((2, 2), np.float32)}},
        {"residency": Residency.DEVICE},
        {"residency": Residency.REGION},
    ],
)
async def test_batches_and_what_may_not_reach_the_top_are_not_reviewed(
    asked: dict[str, Any],
) -> None:
    queue = ListQueue()
    answer, _ = await climbed(queue, **asked)

    assert answer.reason is not Reason.REVIEW
    assert queue.items == []


async def test_residency_holds_for_the_queue_whoever_lets_a_payload_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = ListQueue()
    (_, _, top) = hierarchy(queue)
    async with top:
        # Past the check at the door.
        answer, _ = await ask(top, gear=f"{top.flow.gearbox.digest}/g")
        monkeypatch.setattr(top.flow, "check", lambda _request: None)
        kept, _ = await ask(
            top,
            request_id="q2",
            residency=Residency.REGION,
            gear=f"{top.flow.gearbox.digest}/g",
        )

    assert answer.reason is Reason.REVIEW
    assert kept.reason is Reason.TOP_TIER
    assert [one.request_id for one in queue.items] == ["q1"]


async def test_an_audit_is_not_reviewed() -> None:
    queue = ListQueue()
    (_, _, top) = hierarchy(queue)
    async with top:
        answer, _ = await ask(
            top, gear=f"{top.flow.gearbox.digest}/g", audit=True, route=(Tier.CLOUD,)
        )

    assert answer.reason is not Reason.REVIEW
    assert queue.items == []


async def test_without_time_left_the_answer_goes_out_as_it_is() -> None:
    queue = ListQueue()
    # Runs on the event loop, past the time by which the item would have to be in the queue.
    slow = NumbersBackend(UNSURE, delay_s=0.005)
    followed = gearbox(Tier.CLOUD, ASKED)
    top = cloud(MemoryBroker(), slow, gearbox=followed, reviews=queue, inline=True)
    async with top:
        answer, _ = await ask(top, budget_ms=4, gear=f"{top.flow.gearbox.digest}/g")

    assert answer.reason is not Reason.REVIEW
    assert queue.items == []


async def test_replay_takes_a_reviewed_answer_for_what_the_policy_meant(tmp_path: Path) -> None:
    _, (device, *_) = await climbed(ListQueue())

    found = read_recorded([write_log(tmp_path, *device.log.records)], since_s=0)

    assert [one.request_id for one in found.requests] == ["q1"]
    assert found.num_left_out == 0


async def test_a_reviewed_answer_can_be_audited_like_any_other() -> None:
    async with AsyncExitStack() as stack:
        tiers = hierarchy(ListQueue(), reviewed(SKIP), audits=AuditSettings(rate=1.0))
        await online(stack, *tiers)
        await ask(tiers[0])

    assert tiers[0].log.records[0].reason == "review"
    assert tiers[0].log.records[0].audit_chance > 0


async def test_the_story_says_what_a_person_would_win(tmp_path: Path) -> None:
    _, tiers = await climbed(ListQueue())
    paths = [write_log(tmp_path / one.identity.site, *one.log.records) for one in tiers]
    known = KnownPolicy(ASKED, digest_of(encode_policy(ASKED)), "policy.json")

    story = story_of(find_decisions(paths, "q1"), known=known)

    top = story.tiers[2]
    assert top.words[1].startswith("A person was expected to win 0.45 in accuracy for 2 of cost")
    assert top.otherwise == (
        "Its answer would have stood without a review from probability 0.900 on.",
    )
    assert "waits for a person" in " ".join(story.ending)


async def test_an_answer_at_the_top_tells_the_same() -> None:
    (_, _, top) = hierarchy(ListQueue())
    async with top:
        answer, _ = await ask(top, gear=f"{top.flow.gearbox.digest}/g", explain=True)

    told = parse_story(answer.explanation).tiers[0]
    assert told.penalty == 0.1
    assert told.otherwise == (
        "Its answer would have stood without a review from probability 0.900 on.",
    )


class TestQueue:
    async def test_a_full_disk_quota_is_full(self, tmp_path: Path) -> None:
        with SqliteReviewQueue(tmp_path, max_items=2) as queue:
            results = [await queue.put(item(f"i{n}"), 5) for n in (1, 2, 3, 1)]

        assert results == ["queued", "queued", "full", "known"]

    async def test_the_file_does_not_outgrow_its_quota(self, tmp_path: Path) -> None:
        quota = 2_000_000
        with SqliteReviewQueue(tmp_path, max_bytes=quota) as queue:
            results = [
                await queue.put(item(f"i{n}", body=b"x" * 5000 * (n % 7 + 1)), 5)
                for n in range(150)
            ]

        assert results[-1] == "full"
        assert queue.path.stat().st_size < 1.25 * quota + 1_048_576

    async def test_a_locked_file_is_given_up_in_time_and_written_later(
        self, tmp_path: Path
    ) -> None:
        with SqliteReviewQueue(tmp_path) as queue:
            await queue.put(item("first"), 5)
            with closing(sqlite3.connect(queue.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                assert await queue.put(item("late"), 0.05) == "unconfirmed"
                other.execute("ROLLBACK")
            assert await queue.put(item("late"), 5) == "known"

    async def test_no_more_than_a_few_wait_for_the_disk(self, tmp_path: Path) -> None:
        with SqliteReviewQueue(tmp_path) as queue:
            held = threading.Event()
            queue._thread.submit(held.wait, 10)
            results = [await queue.put(item(f"i{n}"), 0.001) for n in range(MAX_WAITING + 1)]
            held.set()
            assert await queue.put(item("next"), 5) in ("queued", "busy")

        assert results == ["unconfirmed"] * MAX_WAITING + ["busy"]

    async def test_trouble_and_its_end_are_logged_once(self, tmp_path: Path) -> None:
        with capture_logs() as lines, SqliteReviewQueue(tmp_path) as queue:
            queue.path.write_bytes(b"no database" * 1000)
            results = [await queue.put(item(), 5) for _ in range(2)]
            kept = queue.path.read_bytes()
            queue.path.unlink()
            results.append(await queue.put(item(), 5))

        assert results == ["failed", "failed", "queued"]
        assert kept.startswith(b"no database")
        assert [line["event"] for line in lines] == [
            "review_queue.failed", "review_queue.recovered",
        ]  # fmt: skip

    async def test_a_file_of_a_later_version_is_left_alone(self, tmp_path: Path) -> None:
        with SqliteReviewQueue(tmp_path) as queue:
            await queue.put(item(), 5)
        with closing(sqlite3.connect(queue.path)) as connection:
            connection.execute("PRAGMA user_version = 2")

        with SqliteReviewQueue(tmp_path) as queue:
            assert await queue.put(item("new"), 5) == "failed"

    async def test_a_file_that_may_not_grow_is_full(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runtime.adapters.review_queue._FILE_PAGES", 10)
        monkeypatch.setattr("runtime.adapters.review_queue._FILE_SHARE", 0.0)
        with SqliteReviewQueue(tmp_path) as queue:
            assert await queue.put(item(body=b"x" * 100_000), 5) == "full"

    async def test_after_closing_nothing_is_taken(self, tmp_path: Path) -> None:
        queue = SqliteReviewQueue(tmp_path)
        queue.close()
        queue.close()

        assert await queue.put(item(), 5) == "busy"

    def test_a_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "state").touch()

        with pytest.raises(StartError, match="cannot make the state folder"):
            SqliteReviewQueue(tmp_path / "state")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("has_reviews", [True, False])
async def test_a_top_tier_opens_a_queue_where_its_policy_has_reviews(
    tmp_path: Path, has_reviews: bool
) -> None:
    path = bundled_policy()
    assert path is not None
    followed = read_policy(path).policy
    many = msgspec.structs.replace(REVIEW, rows=(0,) * len(followed.labels))
    gears = tuple(
        msgspec.structs.replace(gear, review=many if has_reviews else None)
        for gear in followed.gears
    )
    file = tmp_path / "policy.json"
    file.write_bytes(encode_policy(msgspec.structs.replace(followed, gears=gears)))
    state = StateSettings(folder=str(tmp_path / "state"))
    for tier in (Tier.CLOUD, Tier.EDGE):
        settings = ModelSettings(folder=str(bundled_model(tier)))
        async with station(Identity(tier, "s", "r"), settings, state, policy=str(file)) as parts:
            is_there = isinstance(parts.reviewer, Reviewer)
            assert is_there == (has_reviews and tier is Tier.CLOUD)
