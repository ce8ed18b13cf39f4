"""What ``tierwise place CASE.toml`` does."""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from model_zoo.policies.feasibility import ImpossibleError, Relaxation
from runtime.adapters.artifacts import write_artifact
from runtime.core.placement.bounds import because, relaxations, sensitivity
from runtime.core.placement.chains import describe, options
from runtime.core.placement.decide import Choice, cheapest, front, one_of_each, recommend
from runtime.core.placement.options import Evaluator
from runtime.core.placement.terms import round_trips_ms, terms_of, tiers_of
from runtime.errors import SettingsError
from tierwise.cli.output import note, say
from tierwise.cli.progress import progress_bar
from tierwise.placement.case_file import EXAMPLE
from tierwise.placement.loading import Loaded, load_case
from tierwise.placement.telling import say_placed, say_placed_json, why_not

if TYPE_CHECKING:
    from runtime.core.placement.case import Case
    from tierwise.cli.progress import Shows

# A decision takes about a millisecond a placement, what would change it hundreds of decisions.
MAX_OPTIONS = 1000
MAX_CHANGED_OPTIONS = 200


def run_case(arguments: argparse.Namespace) -> int:
    """Decides a case and tells the result.

    Raises:
        ImpossibleError: no placement keeps the limits; says which one would have to give way.
    """
    if arguments.example:
        say(EXAMPLE.rstrip("\n"))
        return 0
    if arguments.case is None:
        raise SettingsError("place what? give a CASE.toml; --example prints one to start from")
    with progress_bar("place") as show:
        loaded = load_case(arguments.case, show)
        case = loaded.case
        evaluator = Evaluator(loaded.answers, loaded.file.seed)
        num = sum(1 for _ in itertools.islice(options(case), MAX_OPTIONS + 1))
        if num > MAX_OPTIONS:
            raise SettingsError(
                f"more than {MAX_OPTIONS} placements are too many to try: leave out models or "
                "places, or give models the `places` where they may run"
            )
        best = recommend(evaluator, case)
        if best is None:
            for told in loaded.notes:
                note(f"note: {told}")
            raise impossible(evaluator, case, show)
        found = front(evaluator, case, lambda done, total: show(done, total, "alternatives"))
        others = [one for one in one_of_each(found) if one.name != best.name]
        changes = (
            sensitivity(
                evaluator, case, best, lambda done, total: show(done, total, "what would change it")
            )
            if num <= MAX_CHANGED_OPTIONS
            else None
        )
    if changes is None:
        note(f"note: {num} placements are too many to search for what would change the choice")
    tell = say_placed_json if arguments.json else say_placed
    tell(loaded, best, others, changes or [], num)
    if arguments.explain and not arguments.json:
        _explain(evaluator, case)
    if arguments.plot is not None:
        from tierwise.placement.plot import draw_front  # noqa: PLC0415 - an extra

        draw_front(arguments.plot, found, best, loaded.file.use.currency)
        note(f"drawn: {arguments.plot}")
    if arguments.write_fit is not None:
        _write_fit(arguments.write_fit, loaded, best)
    return 0


def impossible(evaluator: Evaluator, case: Case, show: Shows) -> ImpossibleError:
    """Why nothing is possible, and what each limit alone would have to be."""
    found = []
    for one in relaxations(evaluator, case, lambda done, total: show(done, total, "what helps")):
        placed = one.choice.placed()
        found.append(
            Relaxation(
                target=one.knob.name,
                asked=one.knob.value,
                possible=one.value,
                placement=placed.name,
                accuracy=placed.accuracy,
                late=placed.late_share,
                cost=placed.cost,
            )
        )
    return ImpossibleError(because(evaluator, case), tuple(found))


def _explain(evaluator: Evaluator, case: Case) -> None:
    rows: list[tuple[str, Choice | None, list[str]]] = []
    for option in options(case):
        outcome = evaluator.outcome(case, option)
        missed = [name for name, bad in outcome.missed.items() if bad.all()]
        rows.append((describe(option), cheapest(outcome), missed))
    rows.sort(key=lambda row: (math.inf if row[1] is None else row[1].cost, row[0]))
    why_not(case, rows)


def _write_fit(path: Path, loaded: Loaded, best: Choice) -> None:
    trace = path.with_suffix(".trace.csv")
    folders = {name: str(folder.resolve()) for name, folder in loaded.folders.items()}
    terms = terms_of(loaded.case, best, trace.name, folders)
    option = best.outcome.option
    head = ",".join(tier.value for tier in tiers_of(option)[1:])
    rows = round_trips_ms(loaded.case, option, loaded.file.seed).tolist()
    lines = [",".join("lost" if math.isinf(ms) else f"{ms:.4f}" for ms in row) for row in rows]
    write_artifact(trace, ("\n".join([head, *lines]) + "\n").encode())
    write_artifact(path, _toml(msgspec.to_builtins(terms)).encode())
    note(f"written: {path} and {trace}")


def _toml(plain: dict[str, object]) -> str:
    """Plain values first, then tables."""
    head = [f"{key} = {_value(value)}" for key, value in plain.items()
            if not isinstance(value, dict)]  # fmt: skip
    for key, table in plain.items():
        if isinstance(table, dict):
            head += ["", f"[{key}]", *(f"{name} = {_value(one)}" for name, one in table.items())]
    return "\n".join(["# For `tierwise policy collect|fit --placement`.", *head, ""])


def _value(value: object) -> str:
    # A basic string of TOML is one of JSON, and so is a finite number.
    return msgspec.json.encode(value).decode()
