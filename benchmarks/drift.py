"""What live control does when traffic shifts: alarms, regret and cost, on recorded predictions.

A third of the examples teaches, ``--labels`` of the next third certify, the last third is traffic,
drawn with replacement. After the shift examples that the lowest tier gets wrong come ``--times`` as
often. Every run goes through ``runtime.core.live`` as a device does; audits return at once. Regret
is the top tier's accuracy less that of the answers given; costs are in prices of the top tier.

    python benchmarks/drift.py PREDICTIONS.npz --json
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_zoo.policies.evaluate import judge
from model_zoo.policies.fit import Conditions, Splits, fit_policy
from model_zoo.policies.journeys import Stage, straight_to_the_top
from model_zoo.policies.prediction_files import read_predictions
from model_zoo.policies.predictions import Predictions
from runtime.core.audit import AuditDraws, AuditSettings
from runtime.core.drift import ScoreDrift
from runtime.core.ladder import ladder
from runtime.core.live import LiveControl
from runtime.core.seen import Seen
from runtime.policy import Policy, ScoreReference, Targets

BEFORE, AFTER = 100_000, 300_000
EARLY, LATE = 50_000, 200_000
QUIET = 500_000
# Costs are sums of prices, but for rounding.
CENT = 1e-9
# The step of an audit, which asks all.
ALL_TIERS = -1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What every step of the gear does with every example of the traffic: rows are steps."""

    regret: Floats
    cost: Floats
    is_top: npt.NDArray[np.bool_]
    differs: npt.NDArray[np.bool_]
    confidence: Floats
    score: Floats
    seen: Callable[[int, int], dict[str, Seen]]


@dataclass(frozen=True, slots=True)
class Run:
    """One run, request by request, and when alarms came (counted from the first request)."""

    regret: Floats
    cost: Floats
    steps: npt.NDArray[np.int64]
    score_alarms: tuple[int, ...]
    audit_alarms: tuple[int, ...]
    num_audits: int


def outcomes_of(policy: Policy, traffic: Predictions) -> Outcomes:
    """Follows the only gear of a policy and its safer steps."""
    kinds = {table.tiers[-1]: table.score for table in policy.gears[0].tables}
    stage = Stage(traffic.using(kinds))
    rows = [
        judge(gear, stage) if gear.tables else straight_to_the_top(stage)
        for gear in ladder(policy.gears[0], policy.targets)
    ]
    everyone = np.arange(stage.num)
    answered_by = np.stack([ends.answered_by for ends in rows])
    top = len(traffic.tiers) - 1
    return Outcomes(
        regret=np.stack([stage.correct[-1] - ends.correct for ends in rows]),
        cost=np.stack([ends.cost for ends in rows]),
        is_top=answered_by == top,
        differs=traffic.predicted[answered_by, everyone] != traffic.predicted[-1],
        confidence=traffic.score[answered_by, everyone],
        seen=lambda step, example: _seen(
            stage.predictions,
            float(stage.price.sum()) if step == ALL_TIERS else float(rows[step].cost[example]),
            example,
        ),
        score=stage.predictions.score[0],
    )


def _seen(traffic: Predictions, cost: float, example: int) -> dict[str, Seen]:
    """What the tiers answered that were paid for; the lowest one always answers."""
    price = traffic.relative_price
    paid = next(
        asked
        for asked in itertools.product((False, True), repeat=len(price) - 1)
        if abs(price[0] + float(price[1:] @ np.asarray(asked)) - cost) < CENT
        or abs(float(price[1:] @ np.asarray(asked)) - cost) < CENT
    )
    return {
        name: Seen(int(traffic.predicted[tier, example]), float(traffic.score[tier, example]))
        for tier, name in enumerate(traffic.tiers)
        if tier == 0 or paid[tier - 1]
    }


def run(
    policy: Policy, outcomes: Outcomes, drawn: npt.NDArray[np.int64], *, rate: float, seed: int
) -> Run:
    """Sends examples through live control, one after another."""
    live = LiveControl(policy, audit_rate=rate)
    names = [gear.name for gear in ladder(policy.gears[0], policy.targets)]
    draws = AuditDraws(AuditSettings(rate=rate), random.Random(seed))  # noqa: S311
    steps = np.zeros(len(drawn), np.int64)
    by_score, by_audit, num_audits = [], [], 0
    for number, example in enumerate(drawn.tolist()):
        step = steps[number] = live.standing(0.0).step(len(names) - 1)
        if live.note_score(outcomes.score[example]) and live.drift and live.drift.depth:
            by_score.append(number)
        differs = bool(outcomes.differs[step, example])
        if outcomes.is_top[step, example]:
            seen = outcomes.seen(step, example) if step else None
            live.note_answer(names[step], disagrees=False, is_auditable=False, seen=seen)
            continue
        confidence = float(outcomes.confidence[step, example])
        draw = draws.draw(confidence, can_ask=True, num_in_progress=0)
        live.note_answer(names[step], disagrees=None, is_auditable=draw.chance > 0)
        if draw.is_drawn:
            num_audits += 1
            seen = outcomes.seen(ALL_TIERS, example)
            if live.note_audit(names[step], draw.chance, agrees=not differs, seen=seen):
                by_audit.append(number)
    return Run(
        outcomes.regret[steps, drawn],
        outcomes.cost[steps, drawn],
        steps,
        tuple(by_score),
        tuple(by_audit),
        num_audits,
    )


def measure(policy: Policy, traffic: Predictions, options: argparse.Namespace) -> dict[str, object]:
    """All figures."""
    outcomes = outcomes_of(policy, traffic)
    wrong = ~traffic.correct[0]
    odds = np.where(wrong, float(options.times), 1.0)
    plain, shifted, quiet = [], [], []
    for seed in range(options.runs):
        generator = np.random.default_rng(seed)
        before = generator.integers(0, traffic.num_examples, BEFORE)
        after = generator.choice(traffic.num_examples, AFTER, p=odds / odds.sum())
        drawn = np.concatenate([before, after])
        shifted.append(run(policy, outcomes, drawn, rate=options.audit_rate, seed=seed))
        plain.append(outcomes.regret[0, after])
        still = generator.integers(0, traffic.num_examples, QUIET)
        quiet.append(run(policy, outcomes, still, rate=options.audit_rate, seed=seed))
    alarms = [next((at - BEFORE for at in r.score_alarms if at >= BEFORE), None) for r in shifted]
    calls = [next((at - BEFORE for at in r.audit_alarms if at >= BEFORE), None) for r in shifted]
    return {
        "examples": traffic.num_examples,
        "steps": len(outcomes.cost) - 1,
        "runs": options.runs,
        "audit_rate": options.audit_rate,
        "requests_to_alarm": sorted(alarms, key=lambda at: (at is None, at)),
        "requests_to_refit_alarm": sorted(calls, key=lambda at: (at is None, at)),
        "regret_points": {
            "before": _points([r.regret[:BEFORE] for r in shifted]),
            "first_50000": _points([r.regret[BEFORE : BEFORE + EARLY] for r in shifted]),
            "last_200000": _points([r.regret[-LATE:] for r in shifted]),
            "first_50000_without": _points([regret[:EARLY] for regret in plain]),
            "last_200000_without": _points([regret[-LATE:] for regret in plain]),
        },
        "cost": {
            "before": _mean([r.cost[:BEFORE] for r in shifted]),
            "before_without": _mean([outcomes.cost[0]]),
            "last_200000": _mean([r.cost[-LATE:] for r in shifted]),
        },
        "without_shift": {
            "requests": QUIET * options.runs,
            "score_alarms": sum(len(r.score_alarms) for r in quiet),
            "refit_alarms": sum(len(r.audit_alarms) for r in quiet),
            "share_on_safer_steps": _mean([(r.steps > 0).astype(np.float64) for r in quiet]),
            "score_alarms_other_references": _alarms_of_references(traffic, policy),
        },
    }


def _alarms_of_references(traffic: Predictions, policy: Policy, num: int = 20) -> int:
    """Alarms in ``QUIET`` requests each with references drawn anew: one may be unlucky."""
    if policy.scores is None:
        return 0
    reference, alarms = policy.scores, 0
    scores = traffic.using({reference.tier: reference.kind}).score[0]
    for seed in range(num):
        generator = np.random.default_rng(1000 + seed)
        drawn = generator.choice(scores, reference.num_examples)
        grid = np.linspace(0, 1, len(reference.quantiles))
        quantiles = np.quantile(drawn, grid, method="inverted_cdf")
        watched = ScoreDrift(
            ScoreReference(
                reference.tier, reference.kind, reference.num_examples, tuple(quantiles.tolist())
            )
        )
        for score in generator.choice(scores, QUIET).tolist():
            alarms += watched.note(score) and watched.depth > 0
    return alarms


def _points(parts: list[Floats]) -> float:
    return round(100 * statistics.mean(float(part.mean()) for part in parts), 3)


def _mean(parts: list[Floats]) -> float:
    return round(statistics.mean(float(part.mean()) for part in parts), 4)


def main(options: argparse.Namespace) -> None:
    """Fits, runs and prints."""
    if options.predictions is None:
        print("drift: name a file of predictions, as `tierwise policy eval --dataset` takes them")
        return
    predictions = read_predictions(options.predictions)
    order = np.random.default_rng(options.seed).permutation(predictions.num_examples)
    train, held, traffic = (predictions.take(part) for part in np.array_split(order, 3))
    calibration = held.take(np.arange(min(options.labels, held.num_examples)))
    targets = Targets(max_loss=0.01, delta=0.1)
    policy = fit_policy(Splits(train, calibration), targets, Conditions(), name="drift")
    gear = policy.gears[0]
    found = measure(policy, traffic, options)
    found["gear"] = {"cost": gear.promise.cost.mean, "safer": [one.cost for one in gear.safer]}
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path, nargs="?")
    parser.add_argument("--labels", type=int, default=5000)
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--audit-rate", type=float, default=0.02)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    main(parser.parse_args())
