"""What tiers answered, as text and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.seen import MAX_LABEL, Seen, parse_seen, seen_in, seen_text
from runtime.messages import Hop, Reason, Tier

LABELS = st.integers(0, MAX_LABEL - 1)
ANSWERS = st.builds(Seen, LABELS, st.floats(allow_nan=False, allow_infinity=False))


def hop(tier: Tier, label: int | None = 1, confidence: float | None = 0.5, **rest: float) -> Hop:
    return Hop(tier, "s", "m", "1", Reason.CONFIDENT, label, confidence, **rest)  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from([tier.value for tier in Tier]), ANSWERS))
def test_reading_gives_the_same_numbers_again(seen: dict[str, Seen]) -> None:
    assert parse_seen(seen_text(seen)) == seen


def test_the_text_is_short_and_readable() -> None:
    seen = {"edge": Seen(7, 0.98123), "regional": Seen(3, 0.712)}

    assert seen_text(seen) == "edge=7:0.98123;regional=3:0.712"
    assert parse_seen("") == {}


@pytest.mark.parametrize(
    "text", ["edge", "edge=7", "edge=7:", "moon=7:0.5", "edge=-1:0.5", "edge=7:nan", "edge=7:inf"]
)
def test_what_was_not_written_so_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no answer of a tier|neither a label"):
        parse_seen(text)


def test_answers_of_tiers_above_are_taken_from_the_provenance() -> None:
    hops = (hop(Tier.REGIONAL, 3, 0.7, score=-2.5), hop(Tier.CLOUD, 4, 0.9))

    assert seen_in(hops, above=Tier.EDGE) == {"regional": Seen(3, -2.5), "cloud": Seen(4, 0.9)}
    assert seen_in(hops, above=Tier.REGIONAL) == {"cloud": Seen(4, 0.9)}


def test_an_average_is_not_what_a_tier_answers_by_itself() -> None:
    averaged = Hop(Tier.REGIONAL, "s", "m", "1", Reason.UNSURE, 1, 0.5, averaged=True)

    assert seen_in((averaged, hop(Tier.CLOUD)), above=Tier.EDGE) == {"cloud": Seen(1, 0.5)}


@pytest.mark.parametrize(
    "strange",
    [
        hop(Tier.REGIONAL, None),
        hop(Tier.REGIONAL, 1, None),
        hop(Tier.REGIONAL, -1),
        hop(Tier.REGIONAL, MAX_LABEL),
        hop(Tier.REGIONAL, 1, math.inf),
        hop(Tier.REGIONAL, score=math.nan),
        hop(Tier.EDGE),
    ],
)
def test_what_is_no_answer_of_a_tier_above_is_left_out(strange: Hop) -> None:
    assert seen_in((strange,), above=Tier.EDGE) == {}


def test_a_tier_that_is_there_twice_or_out_of_order_counts_once() -> None:
    hops = (hop(Tier.CLOUD, 1), hop(Tier.REGIONAL, 2), hop(Tier.CLOUD, 3))

    assert seen_in(hops, above=Tier.EDGE) == {"cloud": Seen(1, 0.5)}
