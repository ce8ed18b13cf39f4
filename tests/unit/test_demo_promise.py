"""The demo says whether the policy's predicted shares hold."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fakes.gears import gear, policy
from runtime.policy import Interval, Promise, SplitFacts
from tierwise.demo.promise import checked
from tierwise.demo.tally import Tally
from tierwise.demo.view import summary_table

NOTHING = Interval(0, 0, 0)
SHARES = {"edge": 0.9, "regional": 0.08, "cloud": 0.02}
POLICY = policy(
    gear(budget_ms=50.0, promise=Promise(SHARES, NOTHING, NOTHING, NOTHING)),
    calibration=SplitFacts("c", 5000),
)


def test_shares_within_the_interval_hold() -> None:
    found = checked(POLICY, {"edge": 905, "regional": 77, "cloud": 18}, 100.0)

    assert found is not None
    assert found["holds"]
    edge = found["answered_by"]["edge"]
    assert (edge["predicted"], edge["measured"]) == (0.9, 0.905)
    assert 0.87 < edge["low"] < 0.9 < edge["high"] < 0.93


def test_a_share_outside_of_it_does_not() -> None:
    found = checked(POLICY, {"edge": 700, "regional": 200, "cloud": 100}, 100.0)

    assert found is not None
    assert not found["holds"]


def test_a_longer_run_narrows_the_interval() -> None:
    widths = []
    for num in (100, 10_000):
        found = checked(POLICY, {"edge": num}, 100.0)
        assert found is not None
        widths.append(found["answered_by"]["edge"]["high"] - found["answered_by"]["edge"]["low"])

    assert widths[1] < widths[0] / 3


@pytest.mark.parametrize(("answered", "budget_ms"), [({}, 100.0), ({"edge": 5}, 20.0)])
def test_without_answers_or_a_gear_nothing_is_said(
    answered: dict[str, int], budget_ms: float
) -> None:
    assert checked(POLICY, answered, budget_ms) is None


def test_what_was_measured_is_told_from_what_was_predicted() -> None:
    tally = Tally(100.0)
    summary = tally.summary(
        uplink_bytes=0, num_sent=0, first_answer_s=0.0, state="s", policy=None, dashboard=""
    )
    summary["promise"] = checked(POLICY, {"edge": 700, "regional": 200, "cloud": 100}, 100.0)
    console = Console(width=200, file=io.StringIO(), record=True)

    console.print(summary_table(summary))

    (line,) = [line for line in console.export_text().splitlines() if "policy" in line]
    assert "shares outside the outage not as predicted" in line
    assert "measured (predicted): edge 70.0% (" in line
