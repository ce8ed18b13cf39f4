"""Which rows a question is answered from."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cloud_tier.telemetry.asking import question
from cloud_tier.telemetry.cuts import CUTS, cut_of, shortened
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.series import Series, series_of
from fakes.telemetry import NOW_S, row


def chosen(metric: str, **words: str) -> int | None:
    cut = cut_of(question(metric, words, now_s=NOW_S, retention=Retention()))
    return cut and cut.number


@pytest.mark.parametrize(
    ("metric", "words", "number"),
    [
        ("latency", {}, 1),
        ("rollouts", {}, 1),
        ("escalations", {"by": "region,reason,end_reason,outcome,hour"}, 1),
        ("latency", {"by": "tier", "where": "site=cam-1"}, 2),
        ("cost", {"by": "site"}, 2),
        ("cost", {"by": "label"}, 3),
        ("cost", {"by": "tier", "where": "gear!=g1"}, 3),
        ("cost", {"by": "site,label"}, None),
        ("cost", {"by": "guarantee", "where": "site=cam-1"}, None),
        ("latency", {"since": "1h"}, 1),
        ("latency", {"since": "1h", "by": "site,minute"}, 2),
        ("latency", {"since": "1h", "by": "label"}, None),
        ("accuracy", {"by": "region"}, None),
        ("agreement", {"by": "region"}, None),
    ],
)
def test_the_shortest_rows_that_have_what_is_named(
    metric: str, words: dict[str, str], number: int | None
) -> None:
    assert chosen(metric, **words) == number


def test_what_is_read_besides_counts_as_named() -> None:
    fleet = question("fleet", {"by": "region"}, now_s=NOW_S, retention=Retention())

    assert cut_of(fleet) == CUTS[0]
    assert cut_of(fleet, ("region", "site", "version")) == CUTS[1]


def test_no_cut_leaves_out_what_a_decision_means() -> None:
    meaning = {"tier", "action", "outcome", "answered_by", "reason", "is_entry"}

    assert all(not cut.without & meaning for cut in CUTS)
    assert all(cut.without < set(Series._fields) for cut in CUTS)
    assert all(len(one.without) >= len(next_.without) for one, next_ in pairwise(CUTS))


def test_a_short_series_says_nothing_of_what_is_left_out() -> None:
    series = series_of(row(1))

    short = shortened(series, CUTS[1])

    assert (short.site, short.label, short.gear, short.is_entry) == ("cam-1", "", "", True)
    assert shortened(series._replace(label="9", policy="p9"), CUTS[1]) == short
    assert shortened(series._replace(version="9"), CUTS[1]) != short
