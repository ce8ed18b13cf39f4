"""Policies made of a few numbers: every row of a table says the same."""

from __future__ import annotations

from typing import Any

import msgspec

from fakes.tiers import LABELS
from runtime.core.gearbox import Gearbox
from runtime.messages import USUAL_TIERS, Guarantee, Tier
from runtime.policy import (
    Choice,
    DecisionTable,
    Gear,
    Interval,
    Policy,
    Promise,
    SaferStep,
    ScoreReference,
    SplitFacts,
    Targets,
    TraceFacts,
    digest_of,
    encode_policy,
)

# A score below is one to ask with, from here on the answer stands.
SPLIT_AT = 0.8
_NUMBER = Interval(0.0, 0.0, 0.0)
PROMISE = Promise(answered_by={}, cost=_NUMBER, loss=_NUMBER, accuracy=_NUMBER)


def table(*tiers: str, **options: Any) -> DecisionTable:
    """A table that asks, or gives an earlier answer, where the score is below ``SPLIT_AT``."""
    num_rows = (1 << (len(tiers) - 1)) + 1
    choices = options.pop("choices", None) or [choice(num_rows, **options)]
    return DecisionTable(
        tiers=tiers,
        rows=(0,) * len(LABELS),
        edges=((SPLIT_AT,),) * num_rows,
        choices=tuple(choices),
    )


def choice(num_rows: int, *to: str, answer: str = "", gain: float = 0.5, **rest: Any) -> Choice:
    """A choice that wins ``gain`` where the score is low, and nothing where it is high."""
    to = to or tuple(rest.pop("to", ()))
    return Choice(
        gain=((gain, -1.0),) * num_rows,
        cost=((0.1, 0.1),) * num_rows,
        to=to,
        answer=answer,
        **rest,
    )


def gear(*tables: DecisionTable, name: str = "g", **fields: Any) -> Gear:
    """A certified gear for any budget."""
    named: dict[str, Any] = {"guarantee": Guarantee.CERTIFIED, "penalty": 0.1, "promise": PROMISE}
    return Gear(name=name, tables=tables, **(named | fields))


def policy(*gears: Gear, **fields: Any) -> Policy:
    """A policy of the three tiers."""
    named: dict[str, Any] = {
        "name": "animals",
        "tiers": tuple(tier.value for tier in USUAL_TIERS),
        "prices": (0.0, 0.1, 1.0),
        "labels": LABELS,
        "targets": Targets(max_loss=0.01, delta=0.05),
        "train": SplitFacts("a", 1),
        "calibration": SplitFacts("b", 1),
    }
    return Policy(gears=gears, **(named | fields))


def gearbox(tier: Tier, followed: Policy) -> Gearbox:
    """A tier's gears, as they are read from a file."""
    return Gearbox(tier, followed, digest_of(encode_policy(followed)))


# Up through both tiers, each asking the next one where it is unsure.
CHAIN = policy(
    gear(table("edge", to=("regional",)), table("edge", "regional", to=("cloud",))),
)
SKIP = policy(gear(table("edge", to=("cloud",)), table("edge", "regional", to=("cloud",))))
RACE = policy(gear(table("edge", to=("regional", "cloud"))))
# The region finds that the device's answer is the better one.
LOWER = policy(gear(table("edge", to=("regional",)), table("edge", "regional", answer="edge")))
STRAIGHT = policy(gear())

# A gear with a safer step, and all that live control needs to know of the fit.
_ALL_SURE = ScoreReference("edge", "probability", 5000, (0.9, 1.0))
_TRACE = TraceFacts("t", 100, {"regional": 1.0, "cloud": 1.0})
_WATCHED = msgspec.structs.replace(PROMISE, disagreement=Interval(0.01, 0.0, 0.02))


def watched(*gears: Gear, **fields: Any) -> Policy:
    """A policy of gears that ask the region where unsure, and the cloud one step further."""
    step = SaferStep(penalty=0.01, tables=(table("edge", to=("cloud",)),), cost=0.5, loss=0.0)
    followed = [
        msgspec.structs.replace(one, promise=_WATCHED, safer=(step,) if one.tables else ())
        for one in gears or CHAIN.gears
    ]
    known: dict[str, Any] = {"scores": _ALL_SURE, "trace": _TRACE}
    return policy(*followed, **(known | fields))
