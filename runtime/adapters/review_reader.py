"""Reads review queues, while items are put into them or long after; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from runtime.adapters.log_file import reading
from runtime.adapters.review_queue import COLUMNS, FILE_NAME, TABLE
from runtime.errors import StartError
from runtime.ports import ReviewItem

# A body may be a megabyte, and a list needs none.
_WITHOUT_BODY = ", ".join("x'' AS body" if name == "body" else name for name in COLUMNS)


def queues_in(state: Path) -> list[Path]:
    """The review queues in a folder, at any depth.

    Raises:
        StartError: there is none; says where they come from.
    """
    paths = sorted(state.rglob(FILE_NAME))
    if not paths:
        raise StartError(
            f"no review queue ({FILE_NAME}) in {state}: the top tier of a policy with reviews "
            "makes one in its state folder with the first item"
        )
    return paths


def waiting_in(paths: Iterable[Path]) -> list[ReviewItem]:
    """All that waits, oldest first, without bodies.

    Raises:
        StartError: a queue cannot be read.
    """
    found = [item for path in paths for item in _items(path, _WITHOUT_BODY)]
    return sorted(found, key=lambda item: item.wall_s)


def find_items(paths: Iterable[Path], name: str) -> list[ReviewItem]:
    """The items of this name or request id, oldest first, with their bodies.

    Raises:
        StartError: a queue cannot be read.
    """
    where = "WHERE item = ? OR request_id = ?"
    found = [
        item for path in paths for item in _items(path, ", ".join(COLUMNS), where, (name, name))
    ]
    return sorted(found, key=lambda item: item.wall_s)


def find_item(paths: Iterable[Path], item: str) -> ReviewItem | None:
    """The item of this name with its body; None where it waits no longer.

    Raises:
        StartError: a queue cannot be read.
    """
    for path in paths:
        found = _items(path, ", ".join(COLUMNS), "WHERE item = ?", (item,))
        if found:
            return found[0]
    return None


def _items(
    path: Path, columns: str, where: str = "", values: Sequence[str] = ()
) -> list[ReviewItem]:
    with reading(path, TABLE) as queue:
        if queue is None:
            return []
        query = f"SELECT {columns} FROM {TABLE} {where}"  # noqa: S608 - names of our own
        return [ReviewItem(*row) for row in queue.execute(query, values)]
