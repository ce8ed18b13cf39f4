from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.adapters.metrics import TierMetrics
from runtime.core.reconcile import Counts, reconcile
from runtime.errors import StartError
from runtime.messages import Tier
from tierwise.audit_commands import counts_in

EDGE = Counts(
    tier=Tier.EDGE,
    where="edge",
    received=100,
    answered=95,
    refused=5,
    duplicates=0,
    pending=0,
    sent=30,
    hedges=1,
    escalations={"answered": 25, "upstream_timeout": 4, "no_upstream": 3},
)
REGION = Counts(
    tier=Tier.REGIONAL,
    where="region",
    received=27,
    answered=20,
    refused=4,
    duplicates=3,
    pending=0,
    sent=0,
    hedges=0,
    escalations={},
)


def wrong(*counts: Counts) -> set[str]:
    return {finding.where for finding in reconcile(counts) if not finding.adds_up}


def test_what_went_in_and_came_out_adds_up() -> None:
    assert wrong(REGION, EDGE) == set()


@pytest.mark.parametrize(
    ("edge", "region", "where"),
    [
        ({"answered": 94}, {}, {"edge"}),
        ({"answered": 96}, {}, {"edge"}),
        ({"sent": 40}, {}, {"edge", "edge to regional"}),
        ({"sent": 20}, {}, {"edge", "edge to regional"}),
        ({}, {"received": 10, "answered": 3}, {"edge to regional"}),
        ({}, {"duplicates": 0}, {"region"}),
    ],
)
def test_a_request_too_many_or_too_few_is_found(
    edge: dict[str, Any], region: dict[str, Any], where: set[str]
) -> None:
    assert wrong(replace(EDGE, **edge), replace(REGION, **region)) == where


def test_what_is_in_progress_may_be_on_either_side() -> None:
    busy = replace(EDGE, pending=2, received=102)

    assert wrong(busy) == set()
    assert wrong(replace(busy, received=100)) == set()
    assert wrong(replace(busy, received=103)) == {"edge"}


@given(
    st.lists(
        st.sampled_from(["answered", "refused", "copy", "lost", "unsent", "timeout"]), max_size=50
    )
)
def test_whatever_happens_to_requests_the_counters_of_tiers_that_count_add_up(
    story: list[str],
) -> None:
    def count(*kinds: str) -> int:
        return sum(kind in kinds for kind in story)

    edge = Counts(
        tier=Tier.EDGE,
        where="edge",
        received=len(story),
        answered=len(story) - count("refused"),
        refused=count("refused"),
        duplicates=0,
        pending=0,
        sent=count("answered", "copy", "lost", "timeout"),
        hedges=0,
        escalations={
            "answered": count("answered", "copy"),
            "upstream_timeout": count("lost", "timeout"),
            "no_upstream": count("unsent"),
        },
    )
    region = replace(
        REGION,
        received=count("answered", "copy", "timeout"),
        answered=count("answered", "timeout"),
        refused=0,
        duplicates=count("copy"),
    )

    assert wrong(edge, region) == set()


def test_the_counters_are_read_from_what_a_tier_serves() -> None:
    metrics = TierMetrics(Tier.REGIONAL_2)
    for _ in range(3):
        metrics.count_received()
    metrics.observe_answer("answered", "confident", "regional-2", 1.0)
    metrics.count_refusal("cancelled")
    metrics.count_ignored("duplicate")
    metrics.count_ignored("late_reply")
    metrics.count_sent()
    metrics.count_escalation("answered")

    counts = counts_in(metrics.render()[0].decode(), "here")

    assert counts == Counts(
        tier=Tier.REGIONAL_2,
        where="here",
        received=3,
        answered=1,
        refused=1,
        duplicates=1,
        pending=0,
        sent=1,
        hedges=0,
        escalations={"answered": 1},
        cancelled=1,
    )
    assert wrong(counts) == set()


def test_what_is_no_tier_is_refused() -> None:
    with pytest.raises(StartError, match="no counters of a tier"):
        counts_in("up 1\n", "http://elsewhere")
