"""The outbox on its file beside a list that is trivially right, with crashes between any two steps.

What was put in is delivered at least once and applied once, however often messages and
acknowledgements are doubled, lost or out of order, and whoever dies in between.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import CollectorRegistry

from fakes.clock import FakeClock
from runtime.adapters.outbox import Order, SqliteOutbox, bytes_of
from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.adapters.outbox_schema import open_file
from runtime.adapters.received import SqliteReceived
from runtime.core.outbox import RANKS, SILENT, Limits, Patience
from runtime.messages import ItemKind
from runtime.ports import OutboxItem

LIMITS = Limits(max_items=5, max_bytes=5 * 1024 + 900, max_age_s=100)
PATIENCE = Patience(ack_s=1, answer_s=1, first_s=1, longest_s=4, max_strikes=2)
# In memory nothing is synced, and what is confirmed outlives a process all the same.
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


@dataclass
class Row:
    """An item as the model has it."""

    item: OutboxItem
    seq: int
    parked: str = ""


class Life:
    """One process: an outbox, and at the other end what takes over."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        metrics = OutboxMetrics("m", CollectorRegistry())
        self.file = open_file(folder, max_bytes=2**24)
        self.outbox = SqliteOutbox(self.file, LIMITS, clock, metrics)
        self.received = SqliteReceived(self.outbox, clock, max_bytes=2**20, sends_on=False)


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FOLDER)
        self.clock = FakeClock(wall_s=1_800_000_000.0)
        self.here = Life(Path(self.folder.name) / "here", self.clock)
        self.there = Life(Path(self.folder.name) / "there", self.clock)
        self.rows: list[Row] = []
        self.stored: set[str] = set()
        self.gone: dict[str, int] = {}
        self.flying: list[OutboxItem] = []
        self.words: list[str] = []
        self.acknowledged: set[str] = set()
        self.number = 0
        self.heard_s: float | None = None

    def teardown(self) -> None:
        self.here.file.close()
        self.there.file.close()
        self.folder.cleanup()

    def drop(self, row: Row, reason: str) -> None:
        self.rows.remove(row)
        name = f"dropped:{row.item.kind.value}:{reason}"
        self.gone[name] = self.gone.get(name, 0) + 1

    def expire(self) -> None:
        until_s = self.clock.wall_s() - LIMITS.max_age_s
        for row in [row for row in self.rows if row.item.created_s < until_s]:
            self.drop(row, "age")

    def model_put(self, item: OutboxItem) -> str:
        self.expire()
        rank, size = RANKS[item.kind], bytes_of(item)
        line = sorted(
            (row for row in self.rows if RANKS[row.item.kind] >= rank),
            key=lambda row: (-RANKS[row.item.kind], not row.parked, row.seq),
        )
        used = sum(bytes_of(row.item) for row in self.rows)
        num = 0
        while (
            len(self.rows) - num >= LIMITS.max_items
            or used - sum(bytes_of(row.item) for row in line[:num]) + size > LIMITS.max_bytes
        ):
            num += 1
            if num > len(line):
                name = f"dropped:{item.kind.value}:full"
                self.gone[name] = self.gone.get(name, 0) + 1
                return "full"
        for row in line[:num]:
            self.drop(row, "room")
        self.rows.append(Row(item, self.number))
        return "stored"

    @rule(
        kind=st.sampled_from(ItemKind),
        size=st.sampled_from([0, 10, 500, 2000, 9000]),
        age_s=st.sampled_from([0, 0, 0, 50, 101]),
    )
    def put(self, kind: ItemKind, size: int, age_s: float) -> None:
        self.number += 1
        item = OutboxItem(f"i{self.number}", kind, self.clock.wall_s() - age_s, bytes(size))

        result = self.here.file.submit(lambda file: self.here.outbox.add(file, item)).result()

        assert result == self.model_put(item)
        if result == "stored":
            self.stored.add(item.id)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def put_again(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.rows)).item

        assert self.here.file.submit(lambda file: self.here.outbox.add(file, item)).result() == (
            "known"
        )

    @rule(num=st.integers(1, 3), heard=st.booleans())
    def take(self, num: int, heard: bool) -> None:
        if heard:
            self.heard_s = self.clock.monotonic_s()
        order = Order(
            now_s=self.clock.monotonic_s(),
            max_items=num,
            max_bytes=10**6,
            heard_s=self.heard_s,
            is_up=True,
            allows=lambda *_: True,
            patience=PATIENCE,
            draw=lambda: 1.0,
        )
        self.expire()

        taken = self.here.file.submit(lambda file: self.here.outbox._take(file, order)).result()

        waiting = {row.item.id for row in self.rows if not row.parked}
        assert {item.id for item in taken} <= waiting
        assert len(taken) <= num
        self.flying.extend(taken)
        for row in self.rows:
            parked = self.is_parked(row.item.id)
            # Only silence parks here, and only while others are heard.
            assert not parked or row.parked or (self.heard_s is not None and parked == SILENT)
            row.parked = parked

    def is_parked(self, item_id: str) -> str:
        query = "SELECT parked FROM items WHERE id = ?"
        (parked,) = self.here.file.submit(
            lambda file: file.execute(query, (item_id,)).fetchone()
        ).result()
        return str(parked)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), is_last=st.booleans())
    def arrive(self, data: st.DataObject, is_last: bool) -> None:
        """A message arrives, in any order, perhaps not for the last time."""
        at = data.draw(st.integers(0, len(self.flying) - 1))
        item = self.flying.pop(at) if is_last else self.flying[at]

        self.there.file.submit(lambda file: self.there.received._apply(file, item, "a")).result()

        self.words.append(item.id)

    @precondition(lambda self: self.flying)
    @rule()
    def lose_a_message(self) -> None:
        self.flying.pop()

    @precondition(lambda self: self.words)
    @rule(data=st.data(), is_last=st.booleans())
    def acknowledge(self, data: st.DataObject, is_last: bool) -> None:
        at = data.draw(st.integers(0, len(self.words) - 1))
        word = self.words.pop(at) if is_last else self.words[at]

        query = "DELETE FROM items WHERE id = ?"
        self.here.file.submit(lambda file: file.execute(query, (word,)).rowcount).result()

        self.acknowledged.add(word)
        self.rows = [row for row in self.rows if row.item.id != word]

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self.rows))
        which, values = "id = ?", (row.item.id,)

        self.here.file.submit(
            lambda file: self.here.outbox._park(file, which, values, "bad")
        ).result()

        row.parked = row.parked or "bad"

    @rule(seconds=st.sampled_from([0.1, 1, 5, 40]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def crash_here(self) -> None:
        """The file is closed as it is: nothing is flushed that was not committed."""
        self.here.file.close()
        self.here = Life(Path(self.folder.name) / "here", self.clock)
        self.heard_s = None

    @rule()
    def crash_there(self) -> None:
        self.there.file.close()
        self.there = Life(Path(self.folder.name) / "there", self.clock)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        query = "SELECT id, parked FROM items ORDER BY seq"
        held = self.here.file.submit(lambda file: file.execute(query).fetchall()).result()

        assert held == [(row.item.id, row.parked) for row in self.rows]
        assert len(held) <= LIMITS.max_items

    @invariant()
    def counts_what_was_given_up(self) -> None:
        query = "SELECT name, value FROM totals"
        counted = self.here.file.submit(lambda file: dict(file.execute(query))).result()

        assert counted == self.gone

    @invariant()
    def applies_each_once_and_loses_none(self) -> None:
        query = "SELECT id FROM received"
        rows = self.there.file.submit(lambda file: file.execute(query).fetchall()).result()
        applied = [item_id for (item_id,) in rows]

        assert len(applied) == len(set(applied))
        assert set(applied) <= self.stored
        assert self.acknowledged <= set(applied)
        dropped = sum(number for name, number in self.gone.items() if not name.endswith(":full"))
        held = {row.item.id for row in self.rows}
        assert len(self.stored - set(applied) - held) <= dropped


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
