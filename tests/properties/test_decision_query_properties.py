"""Whatever was decided: each request counts once, and every count adds up."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.decisions import decision, write_log
from runtime.adapters.decision_query import query_escalations
from runtime.messages import Tier
from runtime.ports import DecisionRecord

HEIGHTS = {tier.value: tier.height for tier in Tier}

records = st.builds(
    decision,
    request_id=st.sampled_from(["a", "b", "c", "d"]),
    wall_s=st.integers(0, 5).map(float),
    tier=st.sampled_from(sorted(HEIGHTS)),
    hop=st.integers(0, 2),
    site=st.sampled_from(["s1", "s2"]),
    action=st.sampled_from(["answer", "escalate"]),
    decided_because=st.sampled_from(["confident", "unsure"]),
    outcome=st.sampled_from(["answered", "degraded", "abstained", "failed"]),
    answered_by=st.sampled_from(["", *HEIGHTS]),
    confidence=st.none() | st.floats(0, 1),
    latency_ms=st.floats(0, 1000),
)
logs = st.lists(st.lists(records, max_size=8), min_size=1, max_size=3)


def last_words(given_logs: list[list[DecisionRecord]]) -> list[DecisionRecord]:
    """The last entry decision about each request, the slow and obvious way."""
    entries = [record for log in given_logs for record in log if record.hop == 0]
    ids = {record.request_id for record in entries}
    about = {name: [one for one in entries if one.request_id == name] for name in ids}
    newest = {name: max(one.wall_s for one in found) for name, found in about.items()}
    return [
        [one for one in found if one.wall_s == newest[name]][-1] for name, found in about.items()
    ]


@settings(max_examples=40)
@given(logs)
def test_counts_are_those_of_the_obvious_way(given_logs: list[list[DecisionRecord]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_log(Path(folder) / str(i), *log) for i, log in enumerate(given_logs)]

        rows = query_escalations(paths, by=()).rows
        by_reason = query_escalations(paths, by=("reason", "outcome")).rows

    expected = last_words(given_logs)
    climbed = [one for one in expected if one.action == "escalate"]
    failed = [one for one in climbed if HEIGHTS.get(one.answered_by, -1) <= HEIGHTS[one.tier]]
    counted = [(row.requests, row.escalated, row.failed_escalations) for row in rows]
    assert counted == [(len(expected), len(climbed), len(failed))] * bool(expected)
    assert sum(row.requests for row in by_reason) == len(expected)
    assert sum(row.escalated for row in by_reason) == len(climbed)


@settings(max_examples=40)
@given(st.lists(records, max_size=12))
def test_shares_are_shares(log: list[DecisionRecord]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = query_escalations([write_log(Path(folder), *log)], by=("tier", "site")).rows

    for row in rows:
        assert 0 <= row.escalation_rate <= 1
        assert row.failed_escalations <= row.escalated <= row.requests
        assert row.degraded + row.abstained + row.failed <= row.requests
        assert row.p50_latency_ms <= row.p99_latency_ms
