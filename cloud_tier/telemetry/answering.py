"""Answers for many readers: equal questions are answered once, and few at a time.

Rules of this file:
  * readers that ask the same share one reading of the database, and for ``FRESH_S`` from when it
    began others are given its answer: what a reader is told is never older than that when asked;
  * an error is told to those who waited for it and is not kept; a reader who goes away costs no
    other anything;
  * more than ``MAX_WAITING`` different questions, or ``MAX_READERS`` readers, are refused at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from cloud_tier.telemetry.asking import Question
from cloud_tier.telemetry.kept_answers import Answered, KeptAnswers
from cloud_tier.telemetry.rows import Report, Row
from runtime.errors import OverloadedError

FRESH_S = 1.0
MAX_AT_ONCE, MAX_WAITING, MAX_READERS = 2, 32, 512
MAX_ENTRIES, MAX_BYTES = 256, 32 << 20
_RETRY_AFTER_MS = 1000.0
# Reads the database; runs in a thread.
Read = Callable[[Question, float], Report[Row]]


@dataclass(eq=False)
class _Flight:
    """A question that is being answered; ``began_s`` is None until it is its turn."""

    task: asyncio.Task[Answered]
    began_s: float | None = None


class Answers:
    """Answers questions of one event loop.

    Args:
        read: gives the report of a question, asked at a time in s since 1970.
        fresh_s: for how long an answer is given again; 0: only to those who wait for it.
        clock_s: monotonic seconds.
    """

    def __init__(
        self, read: Read, *, fresh_s: float = FRESH_S, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._read, self._clock_s = read, clock_s
        self._kept = KeptAnswers(fresh_s=fresh_s, max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._latest: dict[Question, _Flight] = {}
        self._tasks: set[asyncio.Task[Answered]] = set()
        self._num_readers = 0

    async def answer(self, asked: Question, now_s: float) -> Answered:
        """The answer to a question of now, in s since 1970.

        Raises:
            OverloadedError: too many are waiting.
            RequestError: too much would have to be read, or the order is unknown.
            TooLateError: it took longer than a question may.
            StorageError: the database does not answer.
        """
        kept = self._kept.get(asked, self._clock_s())
        if kept is not None:
            return kept
        if self._num_readers >= MAX_READERS:
            raise _overloaded(f"{MAX_READERS} readers wait already")
        flight = self._latest.get(asked)
        if flight is None or not self._may_join(flight):
            if len(self._tasks) >= MAX_WAITING:
                raise _overloaded(f"{MAX_WAITING} questions wait already")
            flight = self._started(asked, now_s)
        self._num_readers += 1
        try:
            # A reader who goes away does not take the answer from others.
            return await asyncio.shield(flight.task)
        finally:
            self._num_readers -= 1

    async def close(self) -> None:
        """Ends what is being answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _may_join(self, flight: _Flight) -> bool:
        return flight.began_s is None or self._kept.is_fresh(flight.began_s, self._clock_s())

    def _started(self, asked: Question, now_s: float) -> _Flight:
        task = asyncio.create_task(self._answered(asked, now_s), name="telemetry.answer")
        flight = self._latest[asked] = _Flight(task)
        self._tasks.add(task)

        def ended(_: asyncio.Task[Answered]) -> None:
            self._tasks.discard(task)
            if self._latest.get(asked) is flight:
                del self._latest[asked]
            if not task.cancelled():
                # Seen, also where every reader has gone.
                task.exception()

        task.add_done_callback(ended)
        return flight

    async def _answered(self, asked: Question, now_s: float) -> Answered:
        async with self._turns:
            began_s = self._clock_s()
            flight = self._latest.get(asked)
            if flight is not None and flight.task is asyncio.current_task():
                flight.began_s = began_s
            answered = await asyncio.to_thread(self._reported, asked, now_s)
        self._kept.put(asked, answered, began_s=began_s, now_s=self._clock_s())
        return answered

    def _reported(self, asked: Question, now_s: float) -> Answered:
        body = msgspec.json.encode(self._read(asked, now_s))
        return Answered(body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


def _overloaded(text: str) -> OverloadedError:
    return OverloadedError(f"{text}: ask again in a second", retry_after_ms=_RETRY_AFTER_MS)
