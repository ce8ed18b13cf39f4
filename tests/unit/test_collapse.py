"""When a model that still answers is thought to have collapsed."""

from __future__ import annotations

import random

from runtime.core.collapse import MIN_WINDOWS, WINDOW, Collapse

LONG = (MIN_WINDOWS + 1) * WINDOW


def usual(collapse: Collapse, num: int = LONG, seed: int = 1) -> list[str]:
    """Answers of a healthy model of three labels; what was told of them."""
    draw = random.Random(seed)
    return [
        collapse.note(draw.random(), draw.randrange(3), (seed, number)) for number in range(num)
    ]


def test_a_healthy_model_is_never_told() -> None:
    assert not any(usual(Collapse(), 20 * WINDOW))


def test_a_confidence_that_does_not_move_any_more_is_told_until_it_moves() -> None:
    collapse = Collapse()
    usual(collapse)

    told = [collapse.note(0.9991, number % 3, number) for number in range(3 * WINDOW)]

    assert told[WINDOW - 1] == "200 of 200 different inputs got the confidence 0.999"
    assert len([why for why in told if why]) == 3
    assert collapse.is_stuck_at(0.99889)
    assert not collapse.is_stuck_at(0.5)
    assert not collapse.is_stuck_at(0.999)
    assert not any(usual(collapse, seed=2))


def test_labels_that_are_all_the_same_are_told_once_and_then_usual() -> None:
    collapse = Collapse()
    usual(collapse)
    draw = random.Random(3)

    told = [collapse.note(draw.random(), 2, number) for number in range(5 * WINDOW)]

    assert [why for why in told if why] == ["200 different inputs in a row got the label 2"]
    assert not collapse.is_stuck_at(0.5)


def test_a_model_that_was_always_like_that_is_not_told() -> None:
    collapse = Collapse()

    assert not any(collapse.note(1.0, 0, number) for number in range(10 * WINDOW))


def test_a_still_picture_is_no_collapse() -> None:
    collapse = Collapse()
    usual(collapse)

    assert not any(collapse.note(0.9, 1, "the same") for _ in range(10 * WINDOW))


def test_short_windows_are_not_judged() -> None:
    collapse = Collapse()
    usual(collapse)

    assert not any(collapse.note(0.9, 1, number) for number in range(WINDOW - 1))
