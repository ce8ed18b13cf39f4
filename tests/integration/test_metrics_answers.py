"""Equal questions of many readers are answered once; overload, errors and cancelled readers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from cloud_tier.telemetry import answering
from cloud_tier.telemetry.answering import Answers
from cloud_tier.telemetry.asking import Question, question
from cloud_tier.telemetry.kept_answers import Answered
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.rows import Report, Row
from fakes.telemetry import NOW_S
from fakes.waiting import eventually
from runtime.errors import OverloadedError, StorageError


def asked(number: int = 1) -> Question:
    return question("cost", {"limit": str(number)}, now_s=NOW_S, retention=Retention())


class Database:
    """Answers with how often it was read, once it is let to; fails as often as it is told."""

    def __init__(self) -> None:
        self.num_reads, self.num_failures = 0, 0
        self.is_open = threading.Event()
        self.is_open.set()
        self.now_s = 50.0
        self.answers = Answers(self.read, clock_s=lambda: self.now_s)

    def read(self, question: Question, _: float) -> Report[Row]:
        self.num_reads += 1
        number = self.num_reads
        assert self.is_open.wait(10)
        if self.num_failures:
            self.num_failures -= 1
            raise StorageError("away")
        return Report(
            metric=question.metric, since_s=0, until_s=number, grain_s=60, by=[], rows=[],
            next="", notes=[],
        )  # fmt: skip

    def start(self, number: int = 1) -> asyncio.Task[Answered]:
        return asyncio.create_task(self.answers.answer(asked(number), NOW_S))


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    database = Database()
    yield database
    database.is_open.set()
    await database.answers.close()


async def test_equal_questions_are_read_once(database: Database) -> None:
    database.is_open.clear()
    readers = [database.start() for _ in range(20)]
    await eventually(lambda: database.num_reads)
    database.is_open.set()

    answered = await asyncio.gather(*readers)

    assert database.num_reads == 1
    assert len(set(answered)) == 1


async def test_an_answer_is_given_again_until_it_is_old(database: Database) -> None:
    first = await database.start()
    database.now_s += 0.9
    again = await database.start()
    other = await database.start(2)
    database.now_s += 0.2
    later = await database.start()

    assert first == again
    assert later.tag != first.tag != other.tag
    assert database.num_reads == 3


async def test_nobody_joins_a_reading_that_began_too_long_ago(database: Database) -> None:
    database.is_open.clear()
    slow = database.start()
    await eventually(lambda: database.num_reads == 1)
    database.now_s += 1.0
    late = database.start()
    await eventually(lambda: database.num_reads == 2)
    database.is_open.set()

    assert (await slow).body != (await late).body
    # The later reading is what is kept, whichever ended first.
    assert await database.start() == await late


async def test_an_error_is_told_to_all_who_waited_and_is_not_kept(database: Database) -> None:
    database.num_failures = 1
    database.is_open.clear()
    readers = [database.start() for _ in range(3)]
    await eventually(lambda: database.num_reads)
    database.is_open.set()

    told = await asyncio.gather(*readers, return_exceptions=True)

    assert [type(one) for one in told] == [StorageError] * 3
    assert (await database.start()).body
    assert database.num_reads == 2


async def test_a_reader_who_goes_away_costs_no_other_anything(database: Database) -> None:
    database.is_open.clear()
    first, second = database.start(), database.start()
    await eventually(lambda: database.num_reads)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    database.is_open.set()

    assert first.cancelled()
    assert (await second).body
    assert database.num_reads == 1


async def test_an_error_that_nobody_waits_for_is_no_trouble(database: Database) -> None:
    database.num_failures = 1
    database.is_open.clear()
    alone = database.start()
    await eventually(lambda: database.num_reads)
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    database.is_open.set()
    await eventually(lambda: not database.num_failures)

    assert (await database.start()).body


async def test_more_questions_than_may_wait_are_refused_and_equal_ones_are_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_WAITING", 4)
    database.is_open.clear()
    waiting = [database.start(number) for number in range(1, 5)]
    await eventually(lambda: database.num_reads == answering.MAX_AT_ONCE)

    with pytest.raises(OverloadedError, match="4 questions wait") as refused:
        await database.start(5)
    joined = database.start(4)
    database.is_open.set()

    assert refused.value.retry_after_ms == 1000
    assert (await asyncio.gather(*waiting))[3] == await joined
    assert (await database.start(5)).body


async def test_readers_are_bounded_also_where_they_ask_the_same(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_READERS", 3)
    database.is_open.clear()
    readers = [database.start() for _ in range(3)]
    await eventually(lambda: database.num_reads)

    with pytest.raises(OverloadedError, match="3 readers wait"):
        await database.start()
    database.is_open.set()

    assert len(set(await asyncio.gather(*readers))) == 1


async def test_what_is_being_answered_ends_at_the_close(database: Database) -> None:
    database.is_open.clear()
    reader = database.start()
    await eventually(lambda: database.num_reads)

    await database.answers.close()

    assert isinstance((await asyncio.gather(reader, return_exceptions=True))[0], BaseException)
