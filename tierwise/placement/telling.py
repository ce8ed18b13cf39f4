"""Tells a placement: in tables, and as JSON that ``tierwise place check`` reads again."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from runtime.core.placement.bounds import BreakEven
from runtime.core.placement.case import Case
from runtime.core.placement.decide import Choice, Placed
from runtime.core.placement.options import LATE_SHARE
from runtime.core.placement.terms import tiers_of
from runtime.core.placement.travel import NUM_SAMPLES
from tierwise.cli.output import say, say_json, say_table
from tierwise.placement.loading import Loaded

MAX_CHANGES = 12
ASSUMPTIONS = (
    f"latency is simulated with {NUM_SAMPLES} draws for each part; intervals are its error",
    "waiting is that of an M/M/1 queue in the busiest hour, an upper bound for shared queues",
    "machines are sized for the busiest hour and paid all day",
)
ESTIMATE = (
    "accuracy is an estimate: without predictions, who escalates is taken to be independent of who "
    "is right"
)


def say_placed(
    loaded: Loaded, best: Choice, others: list[Choice], changes: list[BreakEven], num: int
) -> None:
    """The recommendation, what else there is, and what would change it."""
    placed, unit = best.placed(), loaded.file.use.currency
    say(f"{loaded.file.name}: {num} placements tried")
    say(f"recommended: {placed.name}")
    say_table(
        ("MODEL", "PLACE", "KIND", "ACCEPT AT", "REACHED", "ANSWERS", "MACHINES"),
        [
            (
                part.model,
                part.place,
                part.kind,
                "-" if part.accept_at is None else _accept(part.accept_at),
                f"{part.reached_share:.1%}",
                f"{part.answered_share:.1%}",
                str(part.machines),
            )
            for part in placed.parts
        ],
        right=4,
    )
    say(f"accuracy {placed.accuracy:.2%} ({_doubt(loaded, placed)}), late {placed.late_share:.2%}")
    say("latency  " + ", ".join(_quantile(one) for one in placed.latency))
    say(
        f"cost     {placed.cost:.4g} {unit} per million requests: compute {placed.compute:.4g}, "
        f"transfer {placed.transfer:.4g}, power {placed.power:.4g}"
    )
    if placed.cuts:
        say_table(
            ("LINK DOWN", "UP", "STILL ANSWERED", "ACCURACY"),
            [
                (one.link, f"{one.availability_share:.2%}", f"{one.served_share:.0%}",
                 f"{one.accuracy:.2%}")
                for one in placed.cuts
            ],
            right=3,
        )  # fmt: skip
    _say_alternatives([one.placed() for one in others], unit)
    _say_changes(changes)
    for told in (*notes_of(loaded, placed),):
        say(f"note: {told}")


def _doubt(loaded: Loaded, placed: Placed) -> str:
    """What the accuracy is worth: its normal 95 % interval, or that it is an estimate."""
    if placed.is_estimate or loaded.predictions is None:
        return "estimate"
    spread = placed.accuracy * (1 - placed.accuracy) / loaded.predictions.num_examples
    return f"±{1.959964 * math.sqrt(spread):.2%}"


def _accept(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.4f}"


def _quantile(one: Any) -> str:  # noqa: ANN401 - a Quantile
    return f"p{one.share * 100:g} {one.ms:.3g} ms ({one.low_ms:.3g} to {one.high_ms:.3g})"


def _say_alternatives(placed: list[Placed], unit: str) -> None:
    if not placed:
        return
    say_table(
        ("ALTERNATIVE", f"{unit} PER MILLION", "P95 MS", "ACCURACY"),
        [
            (one.name, f"{one.cost:.4g}", f"{one.latency[1].ms:.3g}", f"{one.accuracy:.2%}")
            for one in placed
        ],
        right=3,
    )


def _say_changes(changes: list[BreakEven]) -> None:
    if not changes:
        say("no input, changed by ten times at most, changes the recommendation")
        return
    say_table(
        ("CHANGES IF", "IS NOW", "COMES TO", "THEN"),
        [
            (one.name, f"{one.now:.4g}", f"{one.value:.4g}", one.then or "nothing is possible")
            for one in changes[:MAX_CHANGES]
        ],
    )


def notes_of(loaded: Loaded, placed: Placed) -> tuple[str, ...]:
    """What a person should know beside the figures."""
    return (*((ESTIMATE,) if placed.is_estimate else ()), *loaded.notes, *ASSUMPTIONS)


def say_placed_json(
    loaded: Loaded, best: Choice, others: list[Choice], changes: list[BreakEven], num: int
) -> None:
    """The same for programs; what is infinite is null."""
    placed = best.placed()
    say_json(
        finite(
            {
                "case": loaded.file.name,
                "num_placements": num,
                "currency": loaded.file.use.currency,
                "budget_ms": loaded.case.limits.budget_ms,
                "mean_requests_per_s": loaded.case.load.mean_per_s,
                "peak_requests_per_s": loaded.case.load.peak_per_s,
                "least_requests_per_s": min(loaded.case.load.requests_per_s),
                "num_examples": 0
                if loaded.predictions is None
                else loaded.predictions.num_examples,
                "tiers": [tier.value for tier in tiers_of(best.outcome.option)],
                "recommended": dataclasses.asdict(placed),
                "alternatives": [dataclasses.asdict(one.placed()) for one in others],
                "changes": [dataclasses.asdict(one) for one in changes],
                "notes": list(notes_of(loaded, placed)),
            }
        )
    )


def finite(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same for JSON: what is infinite or no number is null."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def why_not(case: Case, choices: list[tuple[str, Choice | None, list[str]]]) -> None:
    """One line for each placement: what its cheapest setting costs, or which limits it misses."""
    rows = [
        (
            name,
            "-" if choice is None else f"{choice.cost:.4g}",
            "" if choice is not None else ", ".join(missed) or "no setting keeps all limits",
        )
        for name, choice, missed in choices
    ]
    say_table(("PLACEMENT", "COST", "MISSES AT EVERY SETTING"), rows)
    say(f"late means over {case.limits.budget_ms:g} ms; {LATE_SHARE:.0%} may be")
