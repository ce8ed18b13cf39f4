"""What ``tierwise policy collect|fit|eval|show`` do."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.errors import PolicyError
from tierwise.cli.output import note, say, say_json, say_table
from tierwise.cli.progress import progress_bar
from tierwise.review_command import say_reviews
from tierwise.rules_commands import (
    check_for,
    note_rules_left_out,
    read_rules_file,
    say_rules,
    with_rules,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_zoo.policies.evaluate import Evaluation
    from model_zoo.policies.predictions import Predictions
    from runtime.policy import Gear, Interval, Policy

BYTES_PER_KILOBYTE = 1000


def run_collect(arguments: argparse.Namespace) -> int:
    """Writes the predictions of all tiers on a data set."""
    from model_zoo.catalog import bundled_model  # noqa: PLC0415 - keeps --help quick
    from model_zoo.policies.collect import collect, read_examples  # noqa: PLC0415
    from model_zoo.policies.prediction_files import write_predictions  # noqa: PLC0415
    from runtime.messages import USUAL_TIERS  # noqa: PLC0415
    from tierwise.placement.terms_file import use_for_collect  # noqa: PLC0415

    use_for_collect(arguments)
    folders = {name: Path(folder) for name, folder in arguments.model or ()}
    if not folders:
        folders = {tier.value: bundled_model(tier) for tier in USUAL_TIERS}
    prices = dict(arguments.price or ()) or dict(arguments.default_prices)
    examples = read_examples(arguments.data)
    for text in examples.notes:
        note(text)
    if arguments.part:
        examples = examples.part(*range_of_part(arguments.part))
    with progress_bar("collect") as show:
        predictions = collect(
            folders,
            examples,
            prices,
            progress=lambda tier, done, total: show(done, total, f"predict: {tier}"),
        )
    write_predictions(arguments.output, predictions)
    accuracy = dict(zip(predictions.tiers, predictions.correct.mean(axis=1).tolist(), strict=True))
    if arguments.json:
        say_json(
            {
                "output": str(arguments.output),
                "n": predictions.num_examples,
                "digest": predictions.digest,
                "accuracy": accuracy,
                "models": predictions.models,
            }
        )
        return 0
    say(f"{predictions.num_examples} examples of {predictions.source} -> {arguments.output}")
    say_table(
        ("TIER", "ACCURACY", "PRICE"),
        [
            (tier, f"{accuracy[tier]:.2%}", f"{price:g}")
            for tier, price in zip(predictions.tiers, predictions.price, strict=True)
        ],
        right=2,
    )
    return 0


def range_of_part(text: str) -> tuple[int, int | None]:
    """First example and the one behind the last, of ``0:2500``.

    Raises:
        PolicyError: it is no such range.
    """
    first, colon, last = text.partition(":")
    if not colon or not (first or "0").isdecimal() or not (last or "0").isdecimal():
        raise PolicyError(f"--part {text!r} is no range of examples such as 0:2500")
    return int(first or 0), int(last) if last else None


def run_fit(arguments: argparse.Namespace) -> int:
    """Fits, certifies and writes a policy."""
    from model_zoo.policies.fit import Conditions, Splits, fit_policy  # noqa: PLC0415
    from model_zoo.policies.prediction_files import read_predictions  # noqa: PLC0415
    from model_zoo.policies.reuse import check_unused  # noqa: PLC0415
    from model_zoo.policies.review import ReviewTerms  # noqa: PLC0415
    from model_zoo.policies.trace import read_trace  # noqa: PLC0415
    from runtime.adapters.artifacts import write_artifact  # noqa: PLC0415
    from runtime.policy import Targets, digest_of, encode_policy  # noqa: PLC0415
    from runtime.policy_rules import RulesFile  # noqa: PLC0415
    from tierwise.placement.terms_file import use_for_fit  # noqa: PLC0415

    train, calibration = read_predictions(arguments.train), read_predictions(arguments.cal)
    use_for_fit(arguments, train)
    targets = Targets(
        max_loss=arguments.max_loss,
        delta=arguments.delta,
        max_late=arguments.max_late,
        min_accuracy=arguments.min_accuracy,
        max_cost=arguments.max_cost,
    )
    check_unused(calibration, train, targets, [*arguments.used_by, arguments.output])
    rules = RulesFile() if arguments.rules is None else read_rules_file(arguments.rules)
    check_for(rules, train.tiers, train.label_names, arguments.rules)
    if arguments.no_average:
        train, calibration = train.without_beliefs(), calibration.without_beliefs()
    conditions = Conditions(
        budgets_ms=arguments.budget_ms or (0.0,),
        loads=arguments.load or (1.0,),
        trace=None if arguments.trace is None else read_trace(arguments.trace, train.tiers),
        review=None if arguments.review is None else ReviewTerms(*arguments.review),
    )
    with progress_bar("fit") as show:
        policy = fit_policy(
            Splits(train, calibration),
            targets,
            conditions,
            name=arguments.name,
            seed=arguments.seed,
            progress=lambda step: show(0, 0, step),
        )
    policy = with_rules(policy, rules, arguments.rules)
    contents = encode_policy(policy)
    write_artifact(arguments.output, contents)
    if arguments.json:
        say_json({**_as_json(policy), "digest": digest_of(contents)})
    else:
        _tell(policy, is_review_asked=arguments.review is not None)
        say(f"written: {arguments.output} ({len(contents) / BYTES_PER_KILOBYTE:.0f} kB)")
        say(f"use it:  tierwise agent run --set escalation.policy={arguments.output}")
    return 0


def run_eval(arguments: argparse.Namespace) -> int:
    """Measures how fitted policies do, or judges one."""
    from model_zoo.policies.prediction_files import read_predictions  # noqa: PLC0415

    predictions = read_predictions(arguments.dataset, services=arguments.tiers)
    if arguments.policy is not None:
        return _judge(arguments, predictions)
    from model_zoo.policies.evaluate import curve, evaluate  # noqa: PLC0415
    from runtime.policy import Targets  # noqa: PLC0415

    with progress_bar("evaluate") as show:
        evaluation = evaluate(
            predictions,
            Targets(arguments.max_loss, arguments.delta),
            num_labels=arguments.labels,
            num_calibrations=arguments.calibrations,
            seed=arguments.seed,
            progress=show,
        )
    if arguments.plot is not None:
        from model_zoo.policies.plots import draw  # noqa: PLC0415

        shown = curve(predictions, arguments.seed)
        draw(arguments.plot, evaluation, shown, predictions, arguments.seed)
        note(f"drawn: {arguments.plot}")
    if arguments.json:
        say_json(dataclasses.asdict(evaluation))
    else:
        _tell_evaluation(evaluation)
    return 0


def _tell_evaluation(result: Evaluation) -> None:
    say(
        f"{result.dataset}: {result.n} examples; {result.n_calibrations} calibrations with "
        f"{result.num_labels} labels, loss <= {result.max_loss:g}, delta {result.delta:g}"
    )
    captured = {
        "oracle": 1.0,
        "best in hindsight": result.savings_captured_hindsight,
        "certified": result.savings_captured,
        "top tier alone": 0.0,
    }
    costs = (result.cost_oracle, result.cost_hindsight, result.cost_mean, 1.0)
    say_table(
        ("WATERFALL", "COST", "SAVINGS CAPTURED"),
        [
            (name, f"{cost:.3f}", f"{share:.2f}")
            for (name, share), cost in zip(captured.items(), costs, strict=True)
        ],
        right=2,
    )
    say(
        f"promise broken in {result.violation_rate:.1%} of calibrations (95 % sure: at most "
        f"{result.violation_upper95:.1%}); nothing certified in {result.uncertified_rate:.1%}"
    )
    say(
        f"mean loss {result.loss_mean:+.4f}; "
        f"{result.escalations_per_corrected:.2f} escalations per corrected answer"
    )
    say(
        f"to match the top tier: {result.match_saving:.1%} saved "
        f"(loss on unseen examples {result.match_loss:+.4f})"
    )
    say_table(
        ("TIER", "ANSWERS", "ACCURACY", "E-AURC", "AUGRC", "ECE BEFORE", "ECE AFTER"),
        [
            (
                tier,
                f"{result.answered_by[tier]:.1%}",
                f"{quality.accuracy:.2%}",
                f"{quality.e_aurc:.4f}",
                f"{quality.augrc:.4f}",
                f"{quality.ece_before:.4f}",
                f"{quality.ece_after:.4f}",
            )
            for tier, quality in result.scores.items()
        ],
        right=6,
    )


def _judge(arguments: argparse.Namespace, predictions: Predictions) -> int:
    from model_zoo.policies.evaluate import judge  # noqa: PLC0415
    from model_zoo.policies.fit import promise_of  # noqa: PLC0415
    from model_zoo.policies.reuse import check_fits  # noqa: PLC0415
    from model_zoo.policies.review import reviewed_share  # noqa: PLC0415
    from model_zoo.policies.stages import Stage, straight_to_the_top  # noqa: PLC0415
    from runtime.adapters.policy_file import read_policy  # noqa: PLC0415

    policy = read_policy(arguments.policy).policy
    check_fits(policy, predictions)
    note_rules_left_out(policy)
    stage = Stage(predictions)
    found = {}
    for gear in policy.gears:
        ends = judge(gear, stage) if gear.tables else straight_to_the_top(stage)
        promise = promise_of(stage, ends, policy.targets)
        share = reviewed_share(gear, stage, ends)
        found[gear.name] = msgspec.structs.replace(promise, reviewed=share)
    if arguments.json:
        say_json(
            {
                "dataset": predictions.source,
                "n": predictions.num_examples,
                "gears": msgspec.to_builtins(found),
            }
        )
        return 0
    say(f"{policy.name} on {predictions.source}: {predictions.num_examples} examples")
    gears = [msgspec.structs.replace(gear, promise=found[gear.name]) for gear in policy.gears]
    _say_gears(gears, policy.tiers)
    say_reviews(gears)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Says what a policy promises."""
    from runtime.adapters.policy_file import read_policy  # noqa: PLC0415

    policy = read_policy(arguments.policy or bundled()).policy
    if arguments.json:
        say_json(_as_json(policy))
    else:
        _tell(policy)
    return 0


def bundled() -> Path:
    """The policy that comes with the bundled models.

    Raises:
        PolicyError: there is none.
    """
    from model_zoo.catalog import bundled_policy  # noqa: PLC0415

    path = bundled_policy()
    if path is None:
        raise PolicyError("there is no bundled policy; name a file")
    return path


def _as_json(policy: Policy) -> dict[str, Any]:
    """Everything but the tables, which are for machines to look up."""
    plain: dict[str, Any] = msgspec.to_builtins(policy)
    for gear in plain["gears"]:
        gear["tables"] = [">".join(table["tiers"]) for table in gear["tables"]]
        if gear.get("review"):
            for name in ("rows", "edges", "chance"):
                del gear["review"][name]
    return plain


def _tell(policy: Policy, *, is_review_asked: bool = False) -> None:
    targets = policy.targets
    asked = [f"loss <= {targets.max_loss:g}"]
    asked += [f"late <= {targets.max_late:g}"] if targets.max_late is not None else []
    asked += [f"accuracy >= {targets.min_accuracy:g}"] if targets.min_accuracy is not None else []
    asked += [f"cost <= {targets.max_cost:g}"] if targets.max_cost is not None else []
    say(f"{policy.name}: {', '.join(asked)}, wrong with a chance of at most {targets.delta:g}")
    say(
        f"learned on {policy.train.num_examples} examples of {policy.train.source}, certified on "
        f"{policy.calibration.num_examples} of {policy.calibration.source}"
    )
    _say_gears(policy.gears, policy.tiers)
    say_reviews(policy.gears, is_asked=is_review_asked)
    say_rules(policy)
    for gear in policy.gears:
        for agreed in gear.averages:
            shares = zip(agreed.tiers, agreed.weights, strict=True)
            parts = " + ".join(f"{weight:.3f} {tier}" for tier, weight in shares)
            say(f"{gear.name}: {agreed.tiers[-1]} answers on {parts}")
    for gear in policy.gears:
        if gear.safer:
            costs = ", ".join(f"{step.cost:.3f}" for step in gear.safer)
            say(f"{gear.name}: safer steps cost {costs}, and at last everything asks the top tier")
    if any(gear.guarantee == "none" for gear in policy.gears):
        say(
            "A gear without a guarantee sends everything to the top tier: its loss could not be "
            "bounded. More calibration labels or a larger --max-loss would help."
        )


def _say_gears(gears: Sequence[Gear], tiers: Sequence[str]) -> None:
    say_table(
        ("GEAR", "GUARANTEE", "PLACEMENT", *(t.upper() for t in tiers), "COST", "LOSS", "ACCURACY",
         "LATE", "SAVED"),
        [
            (
                gear.name,
                gear.guarantee.value,
                gear.placement,
                *(f"{gear.promise.answered_by[tier]:.1%}" for tier in tiers),
                f"{gear.promise.cost.mean:.3f}",
                _plus_minus(gear.promise.loss),
                _plus_minus(gear.promise.accuracy),
                f"{gear.promise.late:.1%}",
                f"{gear.promise.savings_captured:.2f}",
            )
            for gear in gears
        ],
        right=len(tiers) + 5,
    )  # fmt: skip


def _plus_minus(interval: Interval) -> str:
    half = (interval.high - interval.low) / 2
    return f"{interval.mean:.4f}" if math.isnan(half) else f"{interval.mean:.4f} ±{half:.4f}"
