"""The outbox on SQLite: what it keeps, drops, gives out to be sent, and forgets.

An item that was given out is not given out again before its wait is over, so that nothing has to be
remembered about what is on its way. Waits are in the time of one process life: after a restart
everything is due at once, whatever the wall clock did meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.adapters.sqlite_file import SqliteFile, Work
from runtime.core.outbox import (
    RANKS,
    SET_CLOCK_S,
    SILENT,
    Held,
    Limits,
    Patience,
    Used,
    oldest_kept_s,
    room_for,
)
from runtime.errors import StorageError
from runtime.messages import ItemKind
from runtime.ports import Clock, OutboxItem, PutResult

# A row beside its body: names, numbers, its share of the trees.
ROW_BYTES = 1024
_COLUMNS = "id, kind, created_s, body, target, origin, properties, attempts, parked"
_DROP_ORDER = "SELECT id, rank, num_bytes FROM items ORDER BY rank DESC, parked = '', seq"
_DUE = """
SELECT seq, kind, num_bytes, attempts, strikes, sent_s, target FROM items
WHERE parked = '' AND next_try_s <= ? AND (target = '') = ? ORDER BY rank, attempts, seq
"""
_properties = msgspec.json.Decoder(tuple[tuple[str, str], ...])


@dataclass(frozen=True, slots=True)
class Order:
    """What a sender takes: how much, from when on, and how patient it is.

    ``heard_s`` is when anything was last acknowledged; ``is_up`` says whether it sends upwards,
    ``allows`` whether it takes an item of this kind to this target; ``draw`` gives numbers at
    random from 0 to 1.
    """

    now_s: float
    max_items: int
    max_bytes: int
    heard_s: float | None
    is_up: bool
    allows: Callable[[ItemKind, str], bool]
    patience: Patience
    draw: Callable[[], float]


class _Due(NamedTuple):
    seq: int
    kind: str
    attempts: int
    strikes: int
    sent_s: float | None


def bytes_of(item: OutboxItem) -> int:
    """What an item counts as."""
    return len(item.body) + ROW_BYTES


class SqliteOutbox:
    """The ``Outbox`` port on a file that others may share; and what a sender does with it."""

    def __init__(
        self, file: SqliteFile, limits: Limits, clock: Clock, metrics: OutboxMetrics
    ) -> None:
        self.file, self._limits, self._clock, self._metrics = file, limits, clock, metrics
        # Called in the thread of the file when there is something new to send.
        self.wakes: list[Callable[[], None]] = []
        self.file.submit(_begin_life)

    async def put(self, item: OutboxItem) -> PutResult:
        """Keeps an item until it is acknowledged; never raises."""
        try:
            result = await self.file.run(lambda connection: self.add(connection, item))
        except StorageError:
            result = self._unwritten(item.kind)
        return result

    def post(self, item: OutboxItem, work: Work[PutResult] | None = None) -> None:
        """The same without a word of what became of it but in the metrics.

        ``work`` is what is done instead of adding the item alone.
        """

        def done(written: Future[PutResult]) -> None:
            if not written.cancelled() and written.exception() is not None:
                self._unwritten(item.kind)

        adding = work or (lambda connection: self.add(connection, item))
        self.file.submit(adding).add_done_callback(done)

    def add(self, connection: sqlite3.Connection, item: OutboxItem) -> PutResult:
        """Puts an item in within a transaction of the file."""
        known = "SELECT count(*) FROM items WHERE id = ?"
        if connection.execute(known, (item.id,)).fetchone()[0]:
            return "known"
        self.expire(connection)
        new = Held(item.id, RANKS[item.kind], bytes_of(item))
        dropped = room_for(new, used(connection), self._limits, _held(connection))
        if dropped is None:
            self._count_dropped(connection, item.kind, "full")
            return "full"
        for item_id in dropped:
            self._drop(connection, item_id, "room")
        connection.execute(
            "INSERT INTO items (id, origin, kind, rank, target, created_s, properties, body, "
            "num_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                item.id,
                item.origin,
                item.kind.value,
                new.rank,
                item.target,
                item.created_s,
                msgspec.json.encode(item.properties).decode(),
                item.body,
                new.num_bytes,
            ),
        )
        self.show(connection)
        for wake in tuple(self.wakes):
            wake()
        return "stored"

    def expire(self, connection: sqlite3.Connection) -> None:
        """Drops what is over its age."""
        until_s = oldest_kept_s(self._clock.wall_s(), self._limits)
        found = connection.execute(
            "SELECT id FROM items WHERE created_s >= ? AND created_s < ?",
            (SET_CLOCK_S, until_s),
        ).fetchall()
        for (item_id,) in found:
            self._drop(connection, item_id, "age")

    async def take(self, order: Order) -> list[OutboxItem]:
        """Gives out what is due, most precious and least tried first.

        Raises:
            StorageError: the disk does not do it.
        """
        return await self.file.run(lambda connection: self._take(connection, order))

    def _take(self, connection: sqlite3.Connection, order: Order) -> list[OutboxItem]:
        self.expire(connection)
        taken: list[OutboxItem] = []
        for seq, kind, attempts, before, sent_s in self._due(connection, order):
            strikes = order.patience.strikes(before, sent_s=sent_s, heard_s=order.heard_s)
            if strikes >= order.patience.max_strikes:
                self._park(connection, "seq = ?", (seq,), SILENT)
                continue
            wait_s = order.patience.wait_s(ItemKind(kind), attempts, order.draw())
            connection.execute(
                "UPDATE items SET attempts = attempts + 1, strikes = ?, sent_s = ?, next_try_s = ? "
                "WHERE seq = ?",
                (strikes, order.now_s, order.now_s + wait_s, seq),
            )
            select = f"SELECT {_COLUMNS} FROM items WHERE seq = ?"  # noqa: S608 our own names
            taken.append(item_of(connection.execute(select, (seq,)).fetchone()))
        return taken

    def _due(self, connection: sqlite3.Connection, order: Order) -> list[_Due]:
        """What may be sent now; no more is looked at than needed."""
        due: list[_Due] = []
        num_bytes = 0
        rows = connection.execute(_DUE, (order.now_s, order.is_up))
        for seq, kind, size, attempts, strikes, sent_s, target in rows:
            if due and num_bytes + size > order.max_bytes:
                continue
            if not order.allows(ItemKind(kind), target):
                continue
            due.append(_Due(seq, kind, attempts, strikes, sent_s))
            num_bytes += size
            if len(due) >= order.max_items:
                break
        return due

    async def applied(self, ids: Iterable[str], *, target: str = "") -> int:
        """Forgets items that arrived; how many there were.

        Raises:
            StorageError: the disk does not do it.
        """
        wanted = tuple(ids)

        def work(connection: sqlite3.Connection) -> int:
            gone = sum(
                connection.execute(
                    "DELETE FROM items WHERE id = ? AND target = ?", (one, target)
                ).rowcount
                for one in wanted
            )
            self.show(connection)
            return gone

        return await self.file.run(work)

    async def refused(self, item_id: str, code: str, *, target: str = "") -> None:
        """Parks an item that will never be taken; it stands in nobody's way.

        Raises:
            StorageError: the disk does not do it.
        """
        which, values = "id = ? AND target = ?", (item_id, target)
        await self.file.run(lambda connection: self._park(connection, which, values, code))

    async def put_off(self, item_id: str, wait_until_s: Callable[[int], float]) -> None:
        """Sends an item again from then on, without counting this attempt against it.

        ``wait_until_s`` is told how often it was sent.

        Raises:
            StorageError: the disk does not do it.
        """

        def work(connection: sqlite3.Connection) -> None:
            select = "SELECT attempts FROM items WHERE id = ?"
            for (attempts,) in connection.execute(select, (item_id,)).fetchall():
                connection.execute(
                    "UPDATE items SET next_try_s = ?, strikes = 0, sent_s = NULL WHERE id = ?",
                    (wait_until_s(attempts), item_id),
                )

        await self.file.run(work)

    async def release(self, *, target: str | None = None) -> None:
        """Makes everything due again that is on its way: the connection was lost, or is new.

        Raises:
            StorageError: the disk does not do it.
        """
        query = "UPDATE items SET next_try_s = 0, sent_s = NULL WHERE sent_s IS NOT NULL AND "
        which = "target = ''" if target is None else "target = ?"
        values = () if target is None else (target,)
        await self.file.run(lambda connection: connection.execute(query + which, values))

    def show(self, connection: sqlite3.Connection) -> None:
        """Says in the metrics what is held."""
        held = used(connection)
        (parked,) = connection.execute("SELECT count(*) FROM items WHERE parked != ''").fetchone()
        self._metrics.set_held(held.num_items - parked, parked, held.num_bytes)

    def _park(
        self, connection: sqlite3.Connection, which: str, values: tuple[object, ...], code: str
    ) -> None:
        parked = connection.execute(
            f"UPDATE items SET parked = ? WHERE parked = '' AND {which} RETURNING kind",  # noqa: S608 our own
            (code[:64], *values),
        ).fetchall()
        for (kind,) in parked:
            self._metrics.count_parked(ItemKind(kind))
        self.show(connection)

    def _drop(self, connection: sqlite3.Connection, item_id: str, reason: str) -> None:
        (kind,) = connection.execute(
            "DELETE FROM items WHERE id = ? RETURNING kind", (item_id,)
        ).fetchone()
        self._count_dropped(connection, ItemKind(kind), reason)
        # Whoever waits for a correction is to know that none will come.
        connection.execute(
            "UPDATE corrections SET state = 'dropped' WHERE item = ? AND state = 'waiting'",
            (item_id,),
        )

    def _count_dropped(self, connection: sqlite3.Connection, kind: ItemKind, reason: str) -> None:
        self._metrics.count_dropped(kind, reason)
        count_total(connection, f"dropped:{kind.value}:{reason}")

    def _unwritten(self, kind: ItemKind) -> PutResult:
        self._metrics.count_dropped(kind, "failed")
        return "failed"


def count_total(connection: sqlite3.Connection, name: str, add: int = 1) -> int:
    """Adds to a total of the file; what it is now."""
    (value,) = connection.execute(
        "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ? "
        "RETURNING value",
        (name, add, add),
    ).fetchone()
    return int(value)


def used(connection: sqlite3.Connection) -> Used:
    """What is held."""
    return Used(
        *connection.execute("SELECT count(*), coalesce(sum(num_bytes), 0) FROM items").fetchone()
    )


def item_of(row: tuple[object, ...]) -> OutboxItem:
    """A row of ``items`` as it was put in."""
    item_id, kind, created_s, body, target, origin, properties, attempts, parked = row
    return OutboxItem(
        id=str(item_id),
        kind=ItemKind(str(kind)),
        created_s=float(str(created_s)),
        body=bytes(body) if isinstance(body, bytes) else b"",
        target=str(target),
        origin=str(origin),
        properties=_properties.decode(str(properties)),
        attempts=int(str(attempts)),
        parked=str(parked),
    )


def _held(connection: sqlite3.Connection) -> Iterator[Held]:
    for item_id, rank, num_bytes in connection.execute(_DROP_ORDER):
        yield Held(item_id, rank, num_bytes)


def _begin_life(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE items SET next_try_s = 0, sent_s = NULL")
