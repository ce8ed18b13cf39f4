"""The review queue beside a model of it: bounded by items and bytes, the same item once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fakes.reviews import item, run
from runtime.adapters.review_queue import SqliteReviewQueue, bytes_of
from runtime.adapters.review_reader import waiting_in

MAX_ITEMS, MAX_BYTES = 4, 40_000


class QueueMachine(RuleBasedStateMachine):
    """Puts, retries and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="reviews-"))
        self.queue = self._opened()
        self.there: dict[str, int] = {}

    def _opened(self) -> SqliteReviewQueue:
        return SqliteReviewQueue(self.folder, max_items=MAX_ITEMS, max_bytes=MAX_BYTES)

    @rule(name=st.sampled_from("abcdef"), num_bytes=st.integers(0, 20_000))
    def put(self, name: str, num_bytes: int) -> None:
        one = item(name, body=b"x" * num_bytes)
        is_over = (
            len(self.there) >= MAX_ITEMS or sum(self.there.values()) + bytes_of(one) > MAX_BYTES
        )
        expected = "known" if name in self.there else "full" if is_over else "queued"

        assert run(self.queue.put(one, 5.0)) == expected

        if expected == "queued":
            self.there[name] = bytes_of(one)

    @rule()
    def restart(self) -> None:
        self.queue.close()
        self.queue = self._opened()

    @precondition(lambda self: self.there)
    @invariant()
    def what_waits_is_what_was_queued(self) -> None:
        names = [one.item for one in waiting_in([self.queue.path])]
        assert sorted(names) == sorted(self.there)

    def teardown(self) -> None:
        self.queue.close()
        shutil.rmtree(self.folder)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
