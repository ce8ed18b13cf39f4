"""Questions about escalation: what counts, and how often."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes.decisions import decision, escalated, write_log, write_log_of_version_1
from runtime.adapters.decision_log import FILE_NAME, SqliteDecisionLog
from runtime.adapters.decision_query import EscalationRow, find_logs, percentile, query_escalations
from runtime.errors import StartError
from runtime.ports import DecisionRecord


def ask(tmp_path: Path, *records: DecisionRecord, by: tuple[str, ...] = ()) -> EscalationRow:
    (row,) = query_escalations([write_log(tmp_path, *records)], by=by).rows
    return row


def climb(request_id: str) -> Iterator[DecisionRecord]:
    """A request that climbed through all three tiers."""
    yield escalated(request_id, answered_by="cloud")
    yield escalated(request_id, answered_by="cloud", tier="regional", site="gw", hop=1)
    yield decision(request_id, answered_by="cloud", tier="cloud", site="c", region="cloud", hop=2)


def test_a_request_that_climbed_three_tiers_is_one_request(tmp_path: Path) -> None:
    row = ask(tmp_path, *climb("r1"), decision("r2"))

    assert (row.requests, row.escalated, row.answered_here) == (2, 1, 1)
    assert row.escalation_rate == 0.5


def test_by_tier_each_tier_counts_its_own_decisions(tmp_path: Path) -> None:
    path = write_log(tmp_path, *climb("r1"), *climb("r2"), decision("r3"))

    rows = query_escalations([path], by=("tier",)).rows

    counted = {row.group: (row.requests, row.escalated, row.answered_here) for row in rows}
    assert counted == {
        ("edge",): (3, 2, 1),
        ("regional",): (2, 2, 0),
        ("cloud",): (2, 0, 2),
    }


def test_retries_of_an_id_are_one_request_and_the_last_one_counts(tmp_path: Path) -> None:
    row = ask(
        tmp_path,
        escalated("r1", wall_s=1.0, answered_by="edge", outcome="degraded"),
        escalated("r1", wall_s=2.0, answered_by="regional"),
    )

    assert (row.requests, row.escalated) == (1, 1)
    assert (row.failed_escalations, row.degraded) == (0, 0)


def test_a_retry_through_another_gateway_is_one_request_of_the_tier(tmp_path: Path) -> None:
    first = decision("r1", tier="regional", site="gw-1", hop=1, wall_s=1.0)
    second = decision("r1", tier="regional", site="gw-2", hop=1, wall_s=2.0)
    path = write_log(tmp_path, first, second)

    (by_tier,) = query_escalations([path], by=("tier",)).rows
    by_site = query_escalations([path], by=("tier", "site")).rows

    assert by_tier.requests == 1
    assert [row.requests for row in by_site] == [1, 1]


@pytest.mark.parametrize("answered_by", ["edge", ""])
def test_a_failed_escalation_is_no_answer_from_above(tmp_path: Path, answered_by: str) -> None:
    row = ask(
        tmp_path,
        escalated("r1", answered_by=answered_by, outcome="degraded", reason="upstream_timeout"),
        escalated("r2", answered_by="regional"),
    )

    assert (row.escalated, row.failed_escalations) == (2, 1)
    assert row.answered_here == (answered_by == "edge")


def test_failed_escalations_are_not_answered_by_the_tier_above(tmp_path: Path) -> None:
    path = write_log(
        tmp_path,
        escalated("r1", answered_by="edge", outcome="degraded", reason="upstream_timeout"),
        escalated("r2", answered_by="regional"),
    )

    rows = query_escalations([path], by=("answered_by", "end_reason")).rows

    counted = {row.group: (row.requests, row.failed_escalations) for row in rows}
    assert counted == {("edge", "upstream_timeout"): (1, 1), ("regional", "confident"): (1, 0)}


def test_outcomes_are_counted_apart(tmp_path: Path) -> None:
    row = ask(
        tmp_path,
        decision("r1", outcome="degraded"),
        decision("r2", outcome="abstained", answered_by=""),
        decision("r3", outcome="failed", answered_by=""),
        decision("r4"),
    )

    assert (row.degraded, row.abstained, row.failed) == (1, 1, 1)
    assert (row.requests, row.answered_here) == (4, 2)


def test_confidence_is_averaged_where_there_is_one(tmp_path: Path) -> None:
    row = ask(
        tmp_path,
        decision("r1", confidence=0.5),
        decision("r2", confidence=1.0),
        decision("r3", confidence=None),
        decision("r4", confidence=float("nan")),
    )

    assert row.mean_confidence == 0.75


def test_without_any_confidence_there_is_no_mean(tmp_path: Path) -> None:
    assert ask(tmp_path, decision(confidence=None)).mean_confidence is None


def test_latency_percentiles(tmp_path: Path) -> None:
    row = ask(tmp_path, *(decision(f"r{i}", latency_ms=float(i)) for i in range(1, 101)))

    assert (row.p50_latency_ms, row.p99_latency_ms) == (50.0, 99.0)


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [([7.0], 50, 7.0), ([1.0, 2.0], 50, 1.0), ([1, 2], 99, 2)]
)
def test_percentiles_are_values_that_were_seen(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_older_decisions_do_not_count(tmp_path: Path) -> None:
    path = write_log(tmp_path, decision("r1", wall_s=10.0), decision("r2", wall_s=20.0))

    (row,) = query_escalations([path], since_s=15.0, by=()).rows

    assert row.requests == 1


def test_groups_are_in_the_order_asked_for(tmp_path: Path) -> None:
    row = ask(tmp_path, decision(), by=("region", "reason", "tier", "model"))

    assert row.group == ("north", "confident", "edge", "fashion")


def test_an_unknown_dimension_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot group by 'colour': choose from tier, model"):
        query_escalations([tmp_path], by=("colour",))


def test_many_logs_are_counted_together(tmp_path: Path) -> None:
    write_log(tmp_path / "edge", *(one for one in climb("r1") if one.tier == "edge"))
    write_log(tmp_path / "deep" / "gw", *(one for one in climb("r1") if one.tier == "regional"))

    paths = find_logs(tmp_path)

    assert len(paths) == 2
    assert {row.group for row in query_escalations(paths).rows} == {("edge",), ("regional",)}


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path, gather_s=0) as log:
        for i in range(200):
            log.append(decision(f"r{i}"))
            assert log.flush(5)
            assert query_escalations([log.path]).rows[0].requests == i + 1


def test_a_log_without_a_decision_is_empty(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()

    assert query_escalations(find_logs(tmp_path)).rows == ()


def test_a_log_on_a_read_only_place_is_read(tmp_path: Path) -> None:
    path = write_log(tmp_path / "state", decision())
    (tmp_path / "state").chmod(0o500)
    path.chmod(0o400)

    rows = query_escalations([path]).rows

    (tmp_path / "state").chmod(0o700)
    assert rows[0].requests == 1


def test_a_file_that_is_no_log_is_told(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"nothing of the kind" * 100)

    with pytest.raises(StartError, match="cannot read"):
        query_escalations([path])


def test_a_log_of_another_shape_is_told(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE totals (name, value)")
        connection.execute("INSERT INTO totals VALUES ('deleted', 0)")
        connection.commit()

    with pytest.raises(StartError, match="no such table"):
        query_escalations([path])


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StartError):
        query_escalations([tmp_path / FILE_NAME])

    assert list(tmp_path.iterdir()) == []


def test_an_escalation_after_which_the_lower_answer_stands_has_not_failed(tmp_path: Path) -> None:
    row = ask(tmp_path, escalated(answered_by="edge", reason="lower_stands"))

    assert (row.escalated, row.failed_escalations, row.answered_here) == (1, 0, 1)


def test_gears_and_guarantees_are_told_apart_and_old_logs_have_none(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    old = write_log_of_version_1(tmp_path / "old", decision("r1"))
    new = write_log(
        tmp_path / "new",
        decision("r2", gear="g", guarantee="certified"),
        escalated("r3", gear="g", guarantee="suspended", route="cloud"),
    )

    rows = query_escalations([old, new], by=("gear", "guarantee", "route")).rows

    assert sorted(row.group for row in rows) == [
        ("g", "certified", "none"),
        ("g", "suspended", "cloud"),
        ("none", "none", "none"),
    ]
