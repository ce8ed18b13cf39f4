"""Whether the parts of a policy fit together, which no single field shows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from runtime.averages import AVERAGED_SCORES, check_averages
from runtime.policy_rules import check_fallback, check_rules

if TYPE_CHECKING:
    from runtime.policy import (
        Cells,
        Choice,
        DecisionTable,
        Gear,
        Policy,
        Promise,
        Review,
        SaferStep,
    )


def check_policy(policy: Policy) -> None:
    """Refuses a policy whose parts contradict one another.

    Raises:
        ValueError: says which.
    """
    if len(set(policy.tiers)) != len(policy.tiers):
        raise ValueError("a tier is there twice")
    if len(policy.prices) != len(policy.tiers):
        raise ValueError(f"{len(policy.prices)} prices for {len(policy.tiers)} tiers")
    _check_finite("a price", policy.prices)
    asked = msgspec.structs.astuple(policy.targets)
    _check_finite("a target", (number for number in asked if number is not None))
    check_rules(policy.rules, policy.tiers, policy.labels)
    check_fallback(policy.fallback, policy.fallback_rules, policy.tiers, policy.labels)
    _check_live(policy)
    for gear in policy.gears:
        _check_finite("a gear's number", (gear.penalty, gear.budget_ms, gear.load))
        _check_finite("a promise", _numbers_of(gear.promise))
        if gear.review is not None:
            _check_review(gear.review, len(policy.labels))
        for step in gear.safer:
            _check_finite("a safer step's number", (step.penalty, step.cost, step.loss))
        steps: tuple[Gear | SaferStep, ...] = (gear, *gear.safer)
        for one in steps:
            stops = [table.tiers for table in one.tables]
            if len(set(stops)) != len(stops):
                raise ValueError(f"gear {gear.name} has two tables for the same tiers")
            for table in one.tables:
                _check_table(table, policy.tiers, len(policy.labels))
            _check_averaging(one, policy.tiers, len(policy.labels))


def _check_live(policy: Policy) -> None:
    """What traffic is compared with."""
    if policy.trace is not None:
        _check_finite("a median of the trace", policy.trace.median_ms.values())
        if any(ms < 0 for ms in policy.trace.median_ms.values()):
            raise ValueError("a median of the trace is below 0")
    if policy.scores is not None:
        quantiles = policy.scores.quantiles
        _check_finite("a quantile of the scores", quantiles)
        if policy.scores.tier != policy.tiers[0]:
            raise ValueError("the scores to compare with are not those of the lowest tier")
        if any(left > right for left, right in itertools.pairwise(quantiles)):
            raise ValueError("the quantiles of the scores fall")


def _check_finite(what: str, numbers: Iterable[float]) -> None:
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{what} is not finite")


def _numbers_of(promise: Promise) -> Iterable[float]:
    for interval in (promise.cost, promise.loss, promise.accuracy, promise.disagreement):
        if interval is None:
            continue
        yield from (interval.mean, interval.low, interval.high)
    yield from (promise.savings_captured, promise.p_value, promise.late)
    yield from promise.answered_by.values()


def _check_table(table: DecisionTable, tiers: tuple[str, ...], num_labels: int) -> None:
    if [tier for tier in tiers if tier in table.tiers] != list(table.tiers):
        raise ValueError(f"a table of {table.tiers} in a policy of {tiers}")
    if len(table.rows) != num_labels:
        raise ValueError(f"{len(table.rows)} rows for {num_labels} labels")
    num_rows = (max(table.rows) + 1) * table.num_patterns + 1
    if len(table.edges) != num_rows:
        raise ValueError(f"{len(table.edges)} rows of edges where {num_rows} are needed")
    _check_edges(table.edges)
    above = tiers[tiers.index(table.tiers[-1]) + 1 :]
    for choice in table.choices:
        _check_choice(choice, table, above)


def _check_edges(rows: Cells) -> None:
    for edges in rows:
        _check_finite("an edge", edges)
        if any(left >= right for left, right in itertools.pairwise(edges)):
            raise ValueError("the edges of a row do not rise")


def _check_review(review: Review, num_labels: int) -> None:
    _check_finite("a number of a review", (review.price, review.latency_ms))
    if len(review.rows) != num_labels:
        raise ValueError(f"{len(review.rows)} rows of a review for {num_labels} labels")
    if len(review.edges) != max(review.rows) + 2:
        raise ValueError(f"{len(review.edges)} rows of edges in a review")
    _check_edges(review.edges)
    if [len(row) for row in review.chance] != [len(edges) + 1 for edges in review.edges]:
        raise ValueError("a review has not one chance for every bin")
    if not all(0 <= chance <= 1 for row in review.chance for chance in row):
        raise ValueError("a chance of a review is none")


def _check_averaging(gear: Gear | SaferStep, tiers: tuple[str, ...], num_labels: int) -> None:
    check_averages(gear.averages, tiers, num_labels)
    averaged = {average.tiers for average in gear.averages}
    for table in gear.tables:
        if table.tiers in averaged and table.score not in AVERAGED_SCORES:
            raise ValueError(f"a table of {table.tiers} looks up the {table.score} of an average")
        # Whoever races answers before the others can be heard.
        if gear.averages and any(len(choice.to) > 1 for choice in table.choices):
            raise ValueError("a gear averages and asks two tiers at once")


def _check_choice(choice: Choice, table: DecisionTable, above: tuple[str, ...]) -> None:
    if bool(choice.to) == bool(choice.answer):
        raise ValueError("a choice either asks tiers or gives an earlier answer")
    # In the order of the tiers: of several answers that of the last is preferred.
    if [tier for tier in above if tier in choice.to] != list(choice.to):
        raise ValueError(f"{table.tiers[-1]} cannot ask {choice.to}")
    if choice.answer and choice.answer not in table.tiers[:-1]:
        raise ValueError(f"no earlier answer of {choice.answer!r}")
    widths = [len(edges) + 1 for edges in table.edges]
    for cells in (choice.gain, choice.cost):
        if [len(row) for row in cells] != widths:
            raise ValueError("a choice has not one number for every bin")
        for row in cells:
            _check_finite("a number of a table", row)
