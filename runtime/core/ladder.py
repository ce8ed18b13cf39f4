"""The safer steps of a gear, as gears of their own that requests can name and all tiers follow."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from runtime.core.gears import weigh
from runtime.core.seen import Seen
from runtime.messages import Guarantee
from runtime.policy import SAFER, Gear, Policy, Targets, step_names


def ladder(gear: Gear, targets: Targets) -> tuple[Gear, ...]:
    """The gear and its safer steps, the safest last: there the top tier answers everything."""
    names = step_names(gear)
    if not names:
        return (gear,)
    steps = [
        msgspec.structs.replace(
            gear,
            name=name,
            penalty=step.penalty,
            tables=step.tables,
            placement=step.placement,
            averages=step.averages,
            safer=(),
        )
        for name, step in zip(names[:-1], gear.safer, strict=True)
    ]
    top = msgspec.structs.replace(
        gear,
        name=names[-1],
        guarantee=_of_the_top_tier(gear, targets),
        penalty=0.0,
        tables=(),
        placement="",
        averages=(),
        safer=(),
    )
    return (gear, *steps, top)


def _of_the_top_tier(gear: Gear, targets: Targets) -> Guarantee:
    """The top tier loses nothing against itself; all else was not tested for it."""
    others = (targets.max_late, targets.min_accuracy, targets.max_cost)
    is_sure = gear.budget_ms == 0 and not any(target is not None for target in others)
    return gear.guarantee if is_sure else Guarantee.NONE


def step_of(name: str) -> int:
    """Which safer step a gear's name is; 0 for the gear itself."""
    _, found, number = name.rpartition(SAFER)
    return int(number) if found and number.isdecimal() else 0


def gear_named(policy: Policy, name: str) -> Gear | None:
    """The gear or safer step of this name."""
    for gear in policy.gears:
        if name == gear.name or name in step_names(gear):
            return next(step for step in ladder(gear, policy.targets) if step.name == name)
    return None


def label_under(gear: Gear, tiers: tuple[str, ...], seen: Mapping[str, Seen]) -> int | None:
    """The final label under a gear of a request whose answers are ``seen``, over a good link.

    None where an answer is needed that is not among them; averages never are.
    """
    if gear.averages:
        return None
    if not gear.tables:
        return seen[tiers[-1]].label if tiers[-1] in seen else None
    stop = tiers[:1]
    while stop[-1] in seen:
        here, table = seen[stop[-1]], gear.table_at(stop)
        if table is None:
            return here.label
        earlier = [seen[tier].label for tier in stop[:-1]]
        choice = weigh(gear, table, label=here.label, score=here.score, earlier=earlier).choice
        if choice is None:
            return here.label
        if choice.answer:
            return seen[choice.answer].label
        stop = (*stop, choice.to[-1])
    return None
