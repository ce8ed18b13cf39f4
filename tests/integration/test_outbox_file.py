"""The file of an outbox: what is confirmed is there, and a bad disk costs no answer."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from runtime.adapters.clock import SystemClock
from runtime.adapters.outbox import SqliteOutbox
from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.adapters.outbox_reader import items_in
from runtime.adapters.outbox_schema import FILE_NAME, open_file
from runtime.adapters.sqlite_file import MAX_WAITING, SqliteFile
from runtime.core.outbox import Limits
from runtime.errors import StartError, StorageError
from runtime.messages import ItemKind
from runtime.ports import OutboxItem

_WRITER = """
import asyncio, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from runtime.adapters.clock import SystemClock
from runtime.adapters.outbox import SqliteOutbox
from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.adapters.outbox_schema import open_file
from runtime.core.outbox import Limits
from runtime.messages import ItemKind
from runtime.ports import OutboxItem

async def main():
    file = open_file(Path(sys.argv[1]), max_bytes=2**24)
    clock = SystemClock()
    outbox = SqliteOutbox(file, Limits(), clock, OutboxMetrics("m", CollectorRegistry()))
    for number in range(10**6):
        item = OutboxItem(str(number), ItemKind.AUDIT, clock.wall_s(), b"x" * 100)
        assert await outbox.put(item) == "stored"
        print(number, flush=True)

asyncio.run(main())
"""


def outbox_on(file: SqliteFile, limits: Limits | None = None) -> SqliteOutbox:
    metrics = OutboxMetrics("m", CollectorRegistry())
    return SqliteOutbox(file, limits or Limits(), SystemClock(), metrics)


def item(name: str, size: int = 10) -> OutboxItem:
    return OutboxItem(name, ItemKind.AUDIT, SystemClock().wall_s(), bytes(size))


def test_what_was_confirmed_before_a_kill_is_there_afterwards(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    confirmed = [writer.stdout.readline().strip() for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    confirmed += writer.stdout.read().split()
    writer.wait(10)
    writer.stdout.close()

    found = {one.id for one in items_in(tmp_path / FILE_NAME)}

    # A line may be cut off by the kill.
    assert set(confirmed[:-1]) <= found
    assert len(found) - len(confirmed) <= 1


async def test_a_full_disk_has_a_name_and_passes(tmp_path: Path) -> None:
    with open_file(tmp_path, max_bytes=2**24) as file:
        outbox = outbox_on(file)
        (pages,) = await file.run(lambda one: one.execute("PRAGMA page_count").fetchone())
        await file.run(lambda one: one.execute(f"PRAGMA max_page_count = {pages}"))

        results = [await outbox.put(item(str(number), 50_000)) for number in range(3)]
        # The connection that saw it is not used again, and the next one has room.
        after = await outbox.put(item("after"))

    assert results[0] == "failed"
    assert after == "stored"


async def test_one_bad_piece_of_work_costs_no_other(tmp_path: Path) -> None:
    with open_file(tmp_path, max_bytes=2**24) as file:
        outbox = outbox_on(file)
        release = threading.Event()
        held = file.submit(lambda _: release.wait(5))

        def defect(_: sqlite3.Connection) -> None:
            raise ZeroDivisionError

        def bad_sql(connection: sqlite3.Connection) -> None:
            connection.execute("SELECT nothing FROM nowhere")

        defective, bad = file.submit(defect), file.submit(bad_sql)
        good = asyncio.create_task(outbox.put(item("good")))
        await asyncio.sleep(0.01)
        release.set()

        assert await good == "stored"
        assert held.result(5)
        assert isinstance(defective.exception(5), ZeroDivisionError)
        assert isinstance(bad.exception(5), StorageError)


async def test_a_disk_that_does_not_answer_bounds_what_waits(tmp_path: Path) -> None:
    with open_file(tmp_path, max_bytes=2**24) as file:
        outbox = outbox_on(file)
        held, release = threading.Event(), threading.Event()

        def hold(_: sqlite3.Connection) -> None:
            held.set()
            release.wait(5)

        file.submit(hold)
        assert await asyncio.to_thread(held.wait, 5)
        for number in range(MAX_WAITING + 5):
            outbox.post(item(str(number)))

        result = await outbox.put(item("late"))
        release.set()

    assert result == "failed"
    assert await outbox.put(item("closed")) == "failed"


async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 500)

    with open_file(tmp_path, max_bytes=2**24) as file:
        result = await outbox_on(file).put(item("new"))

    assert result == "stored"
    assert (tmp_path / "outbox.damaged").read_bytes().startswith(b"no database")


async def test_a_disk_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    with open_file(tmp_path / "state", max_bytes=2**24) as file:
        outbox = outbox_on(file)
        other = sqlite3.connect(tmp_path / "state" / FILE_NAME)
        await file.run(lambda one: one.execute("PRAGMA busy_timeout = 1"))
        other.execute("BEGIN IMMEDIATE")

        during = await outbox.put(item("during"))
        other.rollback()
        other.close()
        after = await outbox.put(item("after"))

    assert (during, after) == ("failed", "stored")


def test_a_file_of_a_later_version_stops_the_start(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(StartError, match="later version"):
        open_file(tmp_path, max_bytes=2**24)


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match="cannot make"):
        open_file(tmp_path / "file" / "state", max_bytes=2**24)


async def test_the_queue_is_bounded_by_bytes_in_the_stated_order(tmp_path: Path) -> None:
    # Peer that fails: Groundlight, whose queue is bounded by nothing but the disk.
    with open_file(tmp_path, max_bytes=2**24) as file:
        outbox = outbox_on(file, Limits(max_items=100, max_bytes=10 * 1124))
        kinds = [ItemKind.METRICS, ItemKind.FEEDBACK, ItemKind.AUDIT, ItemKind.METRICS]
        for number in range(12):
            kind = kinds[number % 4]
            one = OutboxItem(f"{kind}-{number}", kind, SystemClock().wall_s(), bytes(100))
            await outbox.put(one)
        last = await outbox.put(item("audit", 100))
        metrics = OutboxItem("m", ItemKind.METRICS, SystemClock().wall_s(), bytes(9000))
        refused = await outbox.put(metrics)

    held = [one.id for one in items_in(tmp_path / FILE_NAME)]
    assert last == "stored"
    assert refused == "full"
    assert held[:3] == ["feedback-1", "feedback-5", "feedback-9"]
    assert held[3:7] == ["audit-2", "audit-6", "audit-10", "audit"]
    assert held[7:] == ["metrics-7", "metrics-8", "metrics-11"]
