"""Reads outboxes while they are used or long after, and lets an operator retry or drop items."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.adapters.log_file import reading
from runtime.adapters.outbox import count_total, item_of
from runtime.adapters.outbox_schema import FILE_NAME
from runtime.errors import StartError
from runtime.ports import OutboxItem

_COLUMNS = "id, kind, created_s, {body}, target, origin, properties, attempts, parked"
_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class ReceivedItem:
    """Something that ended its way in this folder."""

    id: str
    origin: str
    sender: str
    kind: str
    created_s: float
    received_s: float
    body: bytes


def outboxes_in(state: Path) -> list[Path]:
    """The outboxes in a folder, at any depth.

    Raises:
        StartError: there is none.
    """
    paths = sorted(state.rglob(FILE_NAME))
    if not paths:
        raise StartError(
            f"no outbox ({FILE_NAME}) in {state}: every tier makes one in its state folder"
        )
    return paths


def items_in(path: Path) -> list[OutboxItem]:
    """All that waits or is parked, in the order in which it is sent, without bodies.

    Raises:
        StartError: the file cannot be read.
    """
    return _items(path, "", "x'' AS body")


def find_item(path: Path, item_id: str) -> OutboxItem | None:
    """One item with its body.

    Raises:
        StartError: the file cannot be read.
    """
    return next(iter(_items(path, "WHERE id = ?", "body", item_id)), None)


def dropped_in(path: Path) -> dict[str, int]:
    """How many items were given up since the file was made, by ``kind:reason``.

    Raises:
        StartError: the file cannot be read.
    """
    prefix = "dropped:"
    with reading(path, "totals") as file:
        if file is None:
            return {}
        rows = file.execute("SELECT name, value FROM totals WHERE name LIKE ?", (f"{prefix}%",))
        return {name.removeprefix(prefix): value for name, value in rows}


def received_in(path: Path, *, kind: str = "", limit: int = 100) -> list[ReceivedItem]:
    """What came from other tiers and ended here, newest first.

    Raises:
        StartError: the file cannot be read.
    """
    query = (
        "SELECT id, origin, sender, kind, created_s, received_s, body FROM received "
        "WHERE ? IN ('', kind) ORDER BY seq DESC LIMIT ?"
    )
    with reading(path, "received") as file:
        if file is None:
            return []
        return [ReceivedItem(*row) for row in file.execute(query, (kind, limit))]


def retry(path: Path, ids: Iterable[str]) -> int:
    """Has parked items sent again; how many there were.

    Raises:
        StartError: the file cannot be written.
    """
    query = (
        "UPDATE items SET parked = '', strikes = 0, sent_s = NULL, next_try_s = 0 "
        "WHERE id = ? AND parked != ''"
    )
    with _writing(path) as file:
        return sum(file.execute(query, (item_id,)).rowcount for item_id in ids)


def drop(path: Path, ids: Iterable[str]) -> int:
    """Gives items up, which is counted; how many there were.

    Raises:
        StartError: the file cannot be written.
    """
    num_dropped = 0
    with _writing(path) as file:
        for item_id in ids:
            for (kind,) in file.execute(
                "DELETE FROM items WHERE id = ? RETURNING kind", (item_id,)
            ).fetchall():
                num_dropped += 1
                count_total(file, f"dropped:{kind}:operator")
                file.execute(
                    "UPDATE corrections SET state = 'dropped' WHERE item = ? AND seq IS NULL",
                    (item_id,),
                )
    return num_dropped


def _items(path: Path, where: str, body: str, *values: str) -> list[OutboxItem]:
    with reading(path, "items") as file:
        if file is None:
            return []
        columns = _COLUMNS.format(body=body)
        query = f"SELECT {columns} FROM items {where} ORDER BY rank, attempts, seq"  # noqa: S608 our own
        return [item_of(row) for row in file.execute(query, values)]


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction beside those of the tier, which may be running."""
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT_S)) as connection, connection:
            yield connection
    except sqlite3.Error as error:
        raise StartError(f"cannot write {path}: {error}") from error
