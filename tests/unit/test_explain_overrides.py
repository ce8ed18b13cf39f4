"""Overrides in the story of an answer."""

from __future__ import annotations

import pytest

from runtime.core.explain_rules import chose_by_rule, ruled
from runtime.messages import Reason


def test_a_pin_gives_the_answer_without_a_model() -> None:
    said = chose_by_rule("Coat", 4, "override:pin-1")
    assert said == "chose Coat by the override pin-1, without a model."


@pytest.mark.parametrize(
    ("rule", "reason", "asked", "said"),
    [
        ("override:p1", Reason.RULE, False, "The override p1 of an operator gives the answer."),
        (
            "override:t1", Reason.RULE, True,
            "The override t1 of an operator sends such requests to home, so it asked home.",
        ),
        (
            "override:b1,override:b2", Reason.CONFIDENT, False,
            "The override b1, b2 of an operator has changed what is answered.",
        ),
    ],
)  # fmt: skip
def test_an_override_is_told_as_one(rule: str, reason: Reason, asked: bool, said: str) -> None:
    assert ruled(rule, reason, above="home", asked=asked, has_own=False) == said
