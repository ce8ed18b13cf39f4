"""Policies that somebody typed: a threshold for every tier, to be replayed like fitted ones.

A TOML file of ``name`` and a table ``[thresholds]`` with the probability, by tier, at or above
which an answer stands. Tiers without one are left out of the way up. It promises nothing.
"""

from __future__ import annotations

import tomllib
from typing import Annotated

import msgspec

from runtime.errors import PolicyError
from runtime.messages import Guarantee
from runtime.policy import Choice, DecisionTable, Gear, Interval, Policy, Promise, Share

UNKNOWN = Interval(0.0, 0.0, 1.0)


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file holds."""

    thresholds: Annotated[dict[str, Share], msgspec.Meta(min_length=1)]
    name: str = "by-hand"


def read_thresholds(text: str, source: str) -> Thresholds:
    """What a TOML file says.

    Raises:
        PolicyError: not TOML, or something else than thresholds.
    """
    try:
        return msgspec.convert(tomllib.loads(text), Thresholds)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise PolicyError(
            f"{source} is no policy by hand: {error}; it has a table [thresholds] such as "
            "edge = 0.8"
        ) from error


def policy_by_hand(base: Policy, typed: Thresholds) -> Policy:
    """The thresholds as a policy for the tiers, classes and prices of ``base``.

    Raises:
        PolicyError: a tier is unknown, or one on the way up has no threshold.
    """
    unknown = [tier for tier in typed.thresholds if tier not in base.tiers[:-1]]
    if unknown or base.tiers[0] not in typed.thresholds:
        raise PolicyError(
            f"thresholds are for {', '.join(base.tiers[:-1])}, the first of them always; "
            f"not {', '.join(unknown) or 'none'}"
        )
    tiers = [tier for tier in base.tiers[:-1] if tier in typed.thresholds]
    gear = Gear(
        name="any",
        guarantee=Guarantee.NONE,
        penalty=0.0,
        tables=tuple(
            _table(tuple(tiers[: count + 1]), (*tiers, base.tiers[-1])[count + 1], base, typed)
            for count in range(len(tiers))
        ),
        promise=Promise(dict.fromkeys(base.tiers, 0.0), UNKNOWN, UNKNOWN, UNKNOWN),
        placement=" > ".join((*tiers, base.tiers[-1])),
    )
    return msgspec.structs.replace(base, name=typed.name, gears=(gear,), method="typed", models={})


def _table(stop: tuple[str, ...], above: str, base: Policy, typed: Thresholds) -> DecisionTable:
    """One row for all: ask below the threshold, answer at and above it."""
    num_rows = (1 << (len(stop) - 1)) + 1
    return DecisionTable(
        tiers=stop,
        rows=(0,) * len(base.labels),
        edges=((typed.thresholds[stop[-1]],),) * num_rows,
        choices=(
            Choice(
                gain=((1.0, -1.0),) * num_rows,
                cost=((0.0, 0.0),) * num_rows,
                to=(above,),
            ),
        ),
    )
