"""What the devices of an experiment have done: each is observed once, when its time is over."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from cloud_tier.rollouts.committing import Kept
from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.experiment_states import CONTROL, ExperimentState, values_of
from runtime.core.rollout_states import Execution, Rollout


class Observer:
    """Reads what was counted; the state of an experiment stays the caller's to store."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def observed(
        self, state: ExperimentState, rollouts: Mapping[str, Kept]
    ) -> ExperimentState:
        """With the devices of one arm each whose time is over since the look before."""
        found: dict[str, dict[str, float]] = {}
        for device, arm in state.devices.items():
            from_s = _since_s(state, rollouts.get(arm), device)
            if device in state.observed or from_s is None or not self._is_over(state, from_s):
                continue
            values = await self._values(state, device, arm, from_s)
            if values is not None:
                found[device] = values
        return replace(state, observed={**state.observed, **found})

    async def observed_pairs(
        self, state: ExperimentState, rollouts: Mapping[str, Kept]
    ) -> ExperimentState:
        """With the devices of both arms whose time is over, and with those that have joined."""
        observed, beside, devices = dict(state.observed), dict(state.beside), dict(state.devices)
        for arm, kept in rollouts.items():
            for record in kept.rollout.devices.values():
                devices.setdefault(record.id, arm)
                is_there = record.state is Execution.SHADOW
                if record.id in observed or not is_there:
                    continue
                if not self._is_over(state, record.since_s):
                    continue
                control = await self._values(state, record.id, CONTROL, record.since_s)
                values = await self._values(state, record.id, arm, record.since_s)
                if control is not None and values is not None:
                    observed[record.id], beside[record.id] = control, values
        return replace(state, observed=observed, beside=beside, devices=devices)

    def _is_over(self, state: ExperimentState, from_s: float) -> bool:
        # Reports of the last window are on their way.
        late_s = self._controller.register.bucket_s
        return from_s <= self._controller.clock.wall_s() - state.observe_s - late_s

    async def _values(
        self, state: ExperimentState, device: str, arm: str, from_s: float
    ) -> dict[str, float] | None:
        sums = await self._controller.register.counted(
            (device,), from_s, from_s + state.observe_s, only=frozenset(state.arms[arm].digests)
        )
        return values_of(state.spec, sums[device]) if device in sums else None


def given_up_somewhere(rollout: Rollout) -> str:
    """Why a split is harmful: a device has ended it by itself; empty where none has.

    One is enough: a device ends it only for what it is sure of.
    """
    for record in rollout.devices.values():
        if record.state is Execution.ROLLED_BACK:
            return f"{record.id} has ended it by itself: {record.reason}"
    return ""


def _since_s(state: ExperimentState, kept: Kept | None, device: str) -> float | None:
    """Since when a device is in its arm; None while it is not."""
    if kept is None:
        return state.started_s
    record = kept.rollout.devices.get(device)
    is_there = record is not None and record.state is Execution.CONFIRMED
    return record.confirmed_s if record is not None and is_there else None
