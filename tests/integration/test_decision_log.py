"""The decision log on a real disk, in health and in trouble."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fakes.decisions import (
    audit,
    decision,
    write_log,
    write_log_of_version_1,
    write_log_of_version_2,
    write_log_of_version_3,
)
from fakes.waiting import eventually_sync
from runtime.adapters.decision_log import FILE_NAME, SqliteDecisionLog
from runtime.adapters.decision_log_schema import SCHEMA_VERSION
from runtime.adapters.decision_query import query_escalations
from runtime.errors import StartError


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM decisions").fetchone()[0])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_closing_writes_everything(tmp_path: Path) -> None:
    path = write_log(tmp_path, *(decision(f"r{i}") for i in range(3000)))

    assert count(path) == 3000


def test_a_log_without_decisions_is_there(tmp_path: Path) -> None:
    path = write_log(tmp_path)

    assert count(path) == 0


def test_every_field_comes_back(tmp_path: Path) -> None:
    record = decision(confidence=None, label=None, propensity=0.25)
    path = write_log(tmp_path, record)

    with closing(sqlite3.connect(path)) as connection:
        (row,) = connection.execute("SELECT * FROM decisions").fetchall()

    assert row == tuple(getattr(record, name) for name in type(record).__slots__)


def test_a_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    write_log(tmp_path, decision("r1"))
    path = write_log(tmp_path, decision("r2"))

    assert count(path) == 2


def test_nobody_has_to_close_to_read(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path, gather_s=0) as log:
        log.append(decision())

        assert log.flush(5)
        assert query_escalations([log.path]).rows[0].requests == 1


def test_records_over_the_queue_are_dropped_and_counted(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path, max_queued=5, gather_s=0) as log:
        log.append(decision("first"))
        assert log.flush(5)
        with locked(log.path):
            log.append(decision("in hand"))
            eventually_sync(lambda: not log._queue)
            for i in range(8):
                log.append(decision(f"r{i}"))

            assert log.num_dropped == 3

    assert count(log.path) == 7
    assert log.num_dropped == 3


def test_a_record_after_closing_is_counted(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path) as log:
        pass

    log.append(decision())
    log.close()

    assert log.num_dropped == 1


def test_a_locked_database_is_told_once_and_its_end_once(tmp_path: Path) -> None:
    with capture_logs() as lines, SqliteDecisionLog(tmp_path, gather_s=0, retry_s=0.05) as log:
        log.append(decision("r1"))
        assert log.flush(5)
        with locked(log.path):
            log.append(decision("r2"))
            assert not log.flush(2.5)
        assert log.flush(5)

    assert [line["event"] for line in lines] == ["decision_log.failed", "decision_log.recovered"]
    assert count(log.path) == 2
    assert log.num_dropped == 0


def test_what_cannot_be_written_until_closing_is_counted(tmp_path: Path) -> None:
    path = write_log(tmp_path, decision("r1"))
    log = SqliteDecisionLog(tmp_path, gather_s=0, retry_s=0.05)
    with locked(path):
        log.append(decision("r2"))
        log.close()

    assert log.num_dropped == 1
    assert count(path) == 1


def test_a_full_disk_does_not_stop_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A database that may not grow says the same as a full disk: SQLITE_FULL.
    is_full = threading.Event()
    real_connect = sqlite3.connect

    def connect(path: Path, **options: bool | float) -> sqlite3.Connection:
        connection: sqlite3.Connection = real_connect(path, **options)  # type: ignore[call-overload]
        if is_full.is_set():
            connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    is_full.set()
    with capture_logs() as lines, SqliteDecisionLog(tmp_path, gather_s=0, retry_s=0.05) as log:
        log.append(decision())
        assert not log.flush(0.5)
        is_full.clear()
        assert log.flush(5)

    assert "full" in lines[0]["error"]
    assert [line["event"] for line in lines] == ["decision_log.failed", "decision_log.recovered"]


def test_over_the_quota_the_oldest_decisions_go_and_the_file_says_how_many(tmp_path: Path) -> None:
    quota = 200_000
    with SqliteDecisionLog(tmp_path, max_bytes=quota, gather_s=0) as log:
        for i in range(4000):
            log.append(decision(f"r{i}"))

    with closing(sqlite3.connect(log.path)) as connection:
        (oldest,) = connection.execute("SELECT request_id FROM decisions LIMIT 1").fetchone()
        ids = {row[0] for row in connection.execute("SELECT request_id FROM decisions")}
    assert oldest != "r0"
    assert "r3999" in ids
    assert log.path.stat().st_size <= quota
    assert query_escalations([log.path]).num_deleted == 4000 - len(ids)


def test_a_lower_quota_makes_the_file_smaller(tmp_path: Path) -> None:
    path = write_log(tmp_path, *(decision(f"r{i}") for i in range(4000)))
    assert path.stat().st_size > 300_000

    with SqliteDecisionLog(tmp_path, max_bytes=100_000, gather_s=0) as log:
        log.append(decision("last"))

    assert path.stat().st_size <= 100_000


def test_a_quota_below_an_empty_file_keeps_the_last_one_and_still_ends(tmp_path: Path) -> None:
    for number in range(2):
        with SqliteDecisionLog(tmp_path, max_bytes=1, gather_s=0) as log:
            log.append(decision(f"r{number}"))

    with closing(sqlite3.connect(log.path)) as connection:
        # Whose number shows that there was one before.
        rows = connection.execute("SELECT rowid, request_id FROM decisions").fetchall()
    assert rows == [(2, "r1")]


def test_a_file_has_a_name_of_its_own_and_tells_what_it_could_not_take(tmp_path: Path) -> None:
    def totals(folder: Path) -> dict[str, int]:
        with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
            return dict(connection.execute("SELECT name, value FROM totals").fetchall())

    with SqliteDecisionLog(tmp_path / "one", max_queued=0, gather_s=0) as log:
        log.append(decision())
        log.append(audit(decision()))
    name = totals(tmp_path / "one")["log"]
    assert (totals(tmp_path / "one")["dropped"], log.num_dropped) == (1, 2)
    with SqliteDecisionLog(tmp_path / "one", max_queued=0, gather_s=0) as log:
        log.append(decision())
    write_log(tmp_path / "two", decision())

    assert totals(tmp_path / "one") == {"deleted": 0, "dropped": 2, "log": name}
    assert totals(tmp_path / "two")["log"] != name > 0


@pytest.mark.parametrize(
    "contents", [b"not a database" * 1000, b"SQLite format 3\0" + b"\1" * 8000]
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(contents)

    with capture_logs() as lines, SqliteDecisionLog(tmp_path, gather_s=0, retry_s=0.01) as log:
        log.append(decision())
        assert log.flush(5)

    assert count(log.path) == 1
    assert (tmp_path / "decisions.damaged").read_bytes() == contents
    assert "decision_log.set_aside" in [line["event"] for line in lines]


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = write_log(tmp_path, decision())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")

    with pytest.raises(StartError, match="later version"):
        SqliteDecisionLog(tmp_path)


def test_a_file_of_the_first_version_is_brought_up_to_date_in_place(tmp_path: Path) -> None:
    path = write_log_of_version_1(tmp_path, decision("old"))

    write_log(tmp_path, decision("new", policy="0123456789ab", gear="g", guarantee="certified"))
    write_log(tmp_path, decision("newer"))

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT request_id, gear, guarantee, score FROM decisions")
        found = rows.fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    assert found == [
        ("old", "", "none", None),
        ("new", "g", "certified", None),
        ("newer", "", "none", None),
    ]
    assert version == SCHEMA_VERSION


def test_a_file_of_the_second_version_is_brought_up_to_date_in_place(tmp_path: Path) -> None:
    path = write_log_of_version_2(tmp_path, decision("old", gear="g", guarantee="certified"))

    new = decision("new", seen="edge=3:0.9", budget_ms=50.0, audit_chance=0.01, residency="cloud")
    write_log(tmp_path, new, audit(new))

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT request_id, guarantee, seen, budget_ms, audit_chance, residency FROM decisions"
        ).fetchall()
        audits = connection.execute("SELECT * FROM audits").fetchall()
    assert rows == [
        ("old", "certified", "", None, 0.0, ""),
        ("new", "none", "edge=3:0.9", 50.0, 0.01, "cloud"),
    ]
    assert audits == [
        (1000.0, "new", "camera-1", "", "", 0.01, "edge=3:0.9;cloud=3:0.8", 1),
    ]


def test_a_file_of_the_third_version_is_brought_up_to_date_in_place(tmp_path: Path) -> None:
    path = write_log_of_version_3(tmp_path, decision("old", seen="edge=3:0.9"))

    write_log(tmp_path, decision("new", rule="night", forwarded="embedding"))

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT request_id, seen, rule, forwarded FROM decisions"
        ).fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    assert rows == [("old", "edge=3:0.9", "", ""), ("new", "", "night", "embedding")]
    assert version == SCHEMA_VERSION


def test_an_audit_that_did_not_come_back_is_kept_without_a_verdict(tmp_path: Path) -> None:
    path = write_log(tmp_path, audit(decision(), seen="", agrees=None))

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT seen, agrees FROM audits").fetchall() == [("", None)]


def test_over_the_quota_audits_go_with_their_decisions(tmp_path: Path) -> None:
    quota = 200_000
    with SqliteDecisionLog(tmp_path, max_bytes=quota, gather_s=0) as log:
        for i in range(4000):
            record = decision(f"r{i}", wall_s=float(i))
            log.append(record)
            if i % 10 == 0:
                log.append(audit(record))

    with closing(sqlite3.connect(log.path)) as connection:
        decided = {row[0] for row in connection.execute("SELECT request_id FROM decisions")}
        audited = {row[0] for row in connection.execute("SELECT request_id FROM audits")}
    assert log.path.stat().st_size <= quota
    assert audited == {f"r{i}" for i in range(0, 4000, 10)} & decided
    assert len(audited) > 10


def test_audits_alone_do_not_outgrow_the_quota(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path, max_bytes=100_000, gather_s=0) as log:
        for i in range(4000):
            log.append(audit(decision(f"r{i}", wall_s=float(i))))

    assert log.path.stat().st_size <= 100_000


def test_what_a_gear_said_is_kept(tmp_path: Path) -> None:
    looked_up: dict[str, Any] = {
        "policy": "0123456789ab",
        "gear": "g",
        "score": 0.4,
        "route": "regional,cloud",
        "gain": 0.2,
        "cost": 1.1,
        "chance": 0.9,
        "guarantee": "suspended",
    }
    path = write_log(tmp_path, decision(**looked_up))

    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM decisions").fetchone())

    assert {name: row[name] for name in looked_up} == looked_up
    assert row["propensity"] == 1.0


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError, match="cannot make the state folder"):
        SqliteDecisionLog(tmp_path / "file" / "state")
