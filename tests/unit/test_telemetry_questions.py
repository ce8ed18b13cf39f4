"""Questions about telemetry: words become a question, or a refusal that says what would."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_tier.telemetry.asking import (
    DIMENSIONS,
    Condition,
    cursor_after,
    moment,
    parse_where,
    question,
)
from cloud_tier.telemetry.limits import Retention
from fakes.telemetry import NOW_S
from runtime.errors import RequestError

HOUR_S, DAY_S = 3600, 86_400


def asked(metric: str = "escalations", **words: str) -> Any:
    return question(metric, words, now_s=NOW_S, retention=Retention())


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("90s", NOW_S - 90),
        ("1.5h", NOW_S - 5400),
        ("7d", NOW_S - 7 * DAY_S),
        ("1790000000", 1_790_000_000),
        ("1970-01-02T00:00:00Z", DAY_S),
        ("1970-01-02T02:00:00+02:00", DAY_S),
        ("99999999d", 0),
    ],
)
def test_times(text: str, at_s: float) -> None:
    assert moment(text, NOW_S) == at_s


@pytest.mark.parametrize(
    "text", ["", "h", "1y", "-1h", "nan", "inf", "-5", "1e300", "2026-11-23T10:00:00", "tomorrow"]
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(RequestError, match="write 90s, 15m, 1h or 7d"):
        moment(text, NOW_S)


@pytest.mark.parametrize(
    ("words", "grain_s"),
    [
        ({"since": "1h"}, 60),
        ({"since": "3h"}, 60),
        ({"since": "4h"}, HOUR_S),
        ({"since": "30h", "by": "minute"}, 60),
        ({"since": "50h", "until": "49h"}, HOUR_S),
        ({"since": "89d"}, HOUR_S),
        ({"since": "100d"}, DAY_S),
        ({"since": "100d", "by": "day"}, DAY_S),
    ],
)
def test_the_coarsest_rows_that_answer_are_read(words: dict[str, str], grain_s: int) -> None:
    found = asked(**words)

    assert found.grain_s == grain_s
    assert found.since_s % grain_s == found.until_s % grain_s == 0
    assert found.since_s <= moment(words["since"], NOW_S)
    assert found.until_s >= moment(words.get("until", "0s"), NOW_S)


@pytest.mark.parametrize(
    ("metric", "words", "wanted"),
    [
        ("escalation", {}, "did you mean 'escalations'"),
        ("cost", {"by": "teir"}, "did you mean 'tier'"),
        ("cost", {"by": "xyz"}, "choose from tier, region"),
        ("cost", {"sinc": "1h"}, "did you mean 'since'"),
        ("agreement", {"by": "tier"}, "agreement cannot be asked by tier: choose from region"),
        ("fleet", {"where": "label=3"}, "fleet cannot be asked by label"),
        ("cost", {"where": "region"}, "is no condition: write region=eu"),
        ("cost", {"where": "hour=3"}, "since and until say the time"),
        ("cost", {"where": "rgion=eu"}, "did you mean 'region'"),
        ("cost", {"limit": "0"}, "from 1 to 10000"),
        ("cost", {"limit": "x"}, "from 1 to 10000"),
        ("cost", {"limit": "10001"}, "from 1 to 10000"),
        ("cost", {"since": "1h", "until": "2h"}, "since is not before until"),
        ("cost", {"since": "100d", "by": "hour"}, "hours of that time are no longer kept"),
        ("cost", {"since": "3d", "by": "minute"}, "minutes of that time are no longer kept"),
        ("cost", {"where": "region=" + "x" * 3000}, "more than 2000 characters"),
        ("cost", {"cursor": "?"}, "the cursor is none"),
        ("cost", {"cursor": "é"}, "the cursor is none"),
        ("cost", {"cursor": "WzFd"}, "the cursor is none"),
    ],
)
def test_what_is_not_understood_says_what_would_be(
    metric: str, words: dict[str, str], wanted: str
) -> None:
    with pytest.raises(RequestError, match=wanted):
        asked(metric, **words)


def test_conditions() -> None:
    assert parse_where("cost", "region=eu, label=3|4,site!=cam-1,answered_by=none,") == (
        Condition("region", ("eu",)),
        Condition("label", ("3", "4")),
        Condition("site", ("cam-1",), is_not=True),
        Condition("answered_by", ("",)),
    )


def test_requests_count_once_unless_the_tier_is_named() -> None:
    assert asked(by="region").counts_entries
    assert not asked(by="tier").counts_entries
    assert not asked(by="region", where="tier=regional").counts_entries


def test_the_older_name_of_the_version_is_understood() -> None:
    assert asked(by="model_version,version").by == ("version",)


@pytest.mark.parametrize("metric", DIMENSIONS)
def test_every_metric_can_be_asked_without_a_word(metric: str) -> None:
    assert asked(metric).metric == metric


def test_a_cursor_keeps_the_time_of_its_question() -> None:
    first = asked(since="10h")
    cursor = cursor_after(first, -3.0, ("edge",))

    later = question("escalations", {"cursor": cursor}, now_s=NOW_S + 7200, retention=Retention())

    assert (later.since_s, later.until_s) == (first.since_s, first.until_s)
    assert later.after is not None
    assert (later.after.value, later.after.group) == (-3.0, ("edge",))
