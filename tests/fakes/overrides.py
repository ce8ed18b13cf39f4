"""Overrides as operators make them."""

from __future__ import annotations

from typing import Any

from fakes.tiers import FakeTier
from fakes.waiting import eventually
from runtime.messages import ControlState, Override, OverrideKind, StopScope

MADE_S = 1_790_000_000.0


def override(kind: str, *labels: str, scope: str = "all", **more: Any) -> Override:
    said = {"id": f"{kind}-1", "why": "a test", "by": "kim@desk", "wall_s": MADE_S, **more}
    return Override(
        kind=OverrideKind(kind), scope=StopScope(scope), labels=labels, **{"lasts_s": 3600, **said}
    )


def overridden(sequence: int, *overrides: Override, region: str = "r") -> ControlState:
    return ControlState(region, sequence, overrides=overrides)


async def known_to(tier: FakeTier, sequence: int) -> None:
    switch = tier.switch
    assert switch is not None
    await eventually(lambda: any(one.sequence == sequence for one in switch.known.values()))
