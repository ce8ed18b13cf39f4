"""Recorded requests: what is given for replay, what is left out, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.decisions import (
    audit,
    decision,
    escalated,
    write_log,
    write_log_of_version_1,
    write_log_of_version_2,
    write_log_of_version_3,
)
from runtime.adapters.replay_log import Recordings, read_recorded
from runtime.core.seen import Seen
from runtime.errors import StartError
from runtime.messages import Tier
from runtime.ports import AuditRecord, DecisionRecord


def stood(request_id: str = "r1", **changes: Any) -> DecisionRecord:
    """An answer that stood on the device and could have been audited."""
    fields = {"seen": "edge=3:0.9", "budget_ms": 100.0, "audit_chance": 0.01, "chance": 0.9}
    return decision(request_id, **(fields | {"residency": "cloud"} | changes))


def read(tmp_path: Path, *records: DecisionRecord | AuditRecord, **options: Any) -> Recordings:
    return read_recorded([write_log(tmp_path, *records)], **({"since_s": 0.0} | options))


def test_a_request_comes_with_all_that_replay_needs(tmp_path: Path) -> None:
    record = stood(policy="0123456789ab", gear="g")

    requests, *counts = read(
        tmp_path, record, audit(record, "edge=3:0.9;regional=3:0.5;cloud=4:0.7", agrees=False)
    )

    (one,) = requests
    assert (one.request_id, one.site, one.budget_ms) == ("r1", "camera-1", 100.0)
    assert (one.model_version, one.policy, one.gear) == ("1", "0123456789ab", "g")
    assert one.seen == {"edge": Seen(3, 0.9)}
    assert one.audit == {"edge": Seen(3, 0.9), "regional": Seen(3, 0.5), "cloud": Seen(4, 0.7)}
    assert one.audit_chance == 0.01
    assert counts == [0, 0, 0]


def test_a_request_that_climbed_has_all_that_was_answered(tmp_path: Path) -> None:
    fields = {"seen": "edge=3:0.4;cloud=4:0.7", "budget_ms": 50.0, "residency": "cloud"}

    (one,) = read(tmp_path, escalated("r1", **fields)).requests

    assert one.seen == {"edge": Seen(3, 0.4), "cloud": Seen(4, 0.7)}
    assert (one.audit_chance, one.audit) == (0.0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": "degraded"},
        {"outcome": "failed"},
        {"outcome": "abstained"},
        {"chance": 0.0},
        {"chance": 0.24},
        {"residency": "device"},
        {"residency": "region"},
        {"residency": ""},
        {"seen": ""},
        {"seen": "cloud=3:0.9"},
        {"seen": "garbage"},
        {"budget_ms": None},
    ],
)
def test_what_did_not_go_as_the_policy_meant_is_left_out_and_counted(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    found = read(tmp_path, stood("r1", **changes), stood("r2"))

    assert [one.request_id for one in found.requests] == ["r2"]
    assert found.num_left_out == 1


def test_a_tier_without_a_way_up_has_no_gate_that_could_be_closed(tmp_path: Path) -> None:
    assert len(read(tmp_path, stood(chance=None)).requests) == 1


def test_the_gate_and_the_top_are_those_of_the_sites(tmp_path: Path) -> None:
    record = stood(chance=0.1, residency="region")

    found = read(tmp_path, record, min_chance=0.05, top=Tier.REGIONAL)

    assert len(found.requests) == 1


def test_decisions_of_tiers_above_are_no_requests(tmp_path: Path) -> None:
    found = read(tmp_path, stood(), stood(tier="regional", site="gw", hop=1))

    assert len(found.requests) == 1
    assert found.num_left_out == 0


def test_the_last_decision_about_an_id_counts_with_its_own_audit(tmp_path: Path) -> None:
    first, second = stood(wall_s=1.0), stood(wall_s=2.0, budget_ms=50.0)
    seen = "edge=3:0.9;cloud=3:0.8"

    found = read(tmp_path, first, audit(first, seen), second)

    (one,) = found.requests
    assert (one.budget_ms, one.audit) == (50.0, None)
    assert (found.num_left_out, found.num_failed_audits) == (0, 0)


def test_an_audit_that_did_not_come_back_keeps_its_chance_and_is_counted(tmp_path: Path) -> None:
    record = stood()

    found = read(tmp_path, record, audit(record, "edge=3:0.9", agrees=None))

    (one,) = found.requests
    assert (one.audit, one.audit_chance) == (None, 0.01)
    assert found.num_failed_audits == 1


def test_an_audit_without_the_top_tier_says_nothing(tmp_path: Path) -> None:
    record = stood()

    found = read(tmp_path, record, audit(record, "edge=3:0.9;regional=3:0.5"))

    assert found.requests[0].audit is None
    assert found.num_failed_audits == 1


def test_only_the_time_asked_for_is_read_in_order(tmp_path: Path) -> None:
    records = [stood(f"r{at}", wall_s=float(at)) for at in (3, 1, 2, 4)]

    found = read(tmp_path, *records, since_s=2.0, until_s=4.0)

    assert [one.request_id for one in found.requests] == ["r2", "r3"]
    assert found.num_left_out == 0


def test_logs_of_earlier_versions_say_too_little(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("1", "2", "now", "empty")]
    for folder in folders:
        folder.mkdir()
    paths = [
        write_log_of_version_1(folders[0], decision("a"), decision("b"), decision("b")),
        write_log_of_version_2(folders[1], decision("c")),
        write_log(folders[2], stood("d")),
        write_log(folders[3]),
    ]

    found = read_recorded(paths, since_s=0.0)

    assert [one.request_id for one in found.requests] == ["d"]
    assert found.num_left_out == 3


def test_a_log_from_before_there_were_rules_can_be_replayed(tmp_path: Path) -> None:
    found = read_recorded([write_log_of_version_3(tmp_path, stood("a"))], since_s=0.0)

    assert [one.request_id for one in found.requests] == ["a"]
    assert found.num_by_rule == 0


def test_the_same_id_at_two_sites_is_two_requests(tmp_path: Path) -> None:
    assert len(read(tmp_path, stood(), stood(site="camera-2")).requests) == 2


def test_what_is_no_log_is_told(tmp_path: Path) -> None:
    path = tmp_path / "decisions.sqlite"
    with pytest.raises(StartError, match="cannot read"):
        read_recorded([path], since_s=0.0)

    path.touch()
    assert read_recorded([path], since_s=0.0) == ([], 0, 0, 0)
