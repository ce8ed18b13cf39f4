"""The rollouts of an experiment: one for each arm but the control, to the devices of that arm."""

from __future__ import annotations

from msgspec.structs import replace

from cloud_tier.rollouts.committing import Kept
from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.desk import done
from cloud_tier.rollouts.experiment_states import CONTROL, ArmState, ExperimentState
from cloud_tier.rollouts.hearing import beat_of
from runtime.core.cohorts import Device
from runtime.core.gate import GateSettings
from runtime.core.rollout_events import (
    Actor,
    AnyEvent,
    Ask,
    Command,
    Heartbeats,
    Role,
    Start,
    TakeOver,
)
from runtime.core.rollout_settings import (
    Deadlines,
    Rollback,
    RolloutSettings,
    ShadowSettings,
    SplitTerms,
)
from runtime.core.rollout_states import Phase, Rollout
from runtime.errors import UnknownRolloutError

# Beyond every experiment: the gate of its rollouts is never asked.
_NEVER_S = 365 * 86_400.0
_ARM_SETTINGS = RolloutSettings(
    shares=(1.0,),
    alpha_shares=(1.0,),
    gate=GateSettings(looks_s=(_NEVER_S,)),
    shadow=None,
    fill_s=_NEVER_S,
)
# Devices stay beside what serves for as long as the experiment lasts; who is away is not late.
_SPLIT_SETTINGS = replace(
    _ARM_SETTINGS,
    shadow=ShadowSettings(min_requests=2**53, max_s=_NEVER_S),
    deadlines=Deadlines(verified=86_400.0, shadow=_NEVER_S),
    rollback=Rollback.MANUAL,
)


class Arms:
    """Begins them; whoever calls holds the controller's lock."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def begin(self, state: ExperimentState) -> dict[str, Kept]:
        """The rollouts of all arms; what a crash has kept from beginning begins.

        Raises:
            RolloutError: a version is not in the catalogue any more, or cannot be begun.
            StorageError: the store cannot be used.
        """
        found: dict[str, Kept] = {}
        for name, arm in state.arms.items():
            if not arm.rollout:
                continue
            try:
                kept = await self._controller.store.get(arm.rollout)
            except UnknownRolloutError:
                kept = await self._draft(state, name, arm)
            if kept.rollout.phase is Phase.DRAFT:
                kept = await self._begin_arm(state, name, kept)
            found[name] = kept
        return found

    async def _draft(self, state: ExperimentState, name: str, arm: ArmState) -> Kept:
        control = self._controller
        entry = await control.catalogue.entry(state.model, arm.version)
        settings = split_settings(state, name) if state.split_by else _ARM_SETTINGS
        rollout = Rollout(
            arm.rollout, state.model, entry.path, arm.rollout, settings, holder=control.name
        )
        why = f"arm {name} of {state.id}: {state.why}"[:500]
        # Later devices may join where each of them is compared with itself.
        is_closed = not state.split_by
        kept = Kept(rollout, entry, control.clock.wall_s(), state.by, why, is_closed=is_closed)
        await control.store.add(control.name, kept)
        return kept

    async def _begin_arm(self, state: ExperimentState, name: str, kept: Kept) -> Kept:
        control, now_s = self._controller, self._controller.clock.wall_s()
        own = [device for device, arm in state.devices.items() if arm == name]
        rows = await control.register.some(own)
        actor = Actor(Role.OPERATOR, state.by)
        since_s = now_s - kept.rollout.settings.offline_after_s
        events: list[AnyEvent] = [
            TakeOver(control.name),
            Ask(Command.APPROVE, actor, kept.why),
            Start(actor, tuple(Device(row.id, row.region, row.hardware) for row in rows)),
            Heartbeats(tuple(beat_of(kept, row, ()) for row in rows if row.heard_s >= since_s)),
        ]
        after, actions = done(kept, events, now_s)
        return await control.commit(kept, after, actions)


def split_settings(state: ExperimentState, name: str) -> RolloutSettings:
    """Those of the rollout that divides requests between the control and an arm."""
    weights = {arm.name: arm.weight for arm in state.spec.arms}
    share = weights[name] / sum(weights.values())
    terms = SplitTerms(share, state.id, state.split_by, state.arms[CONTROL].digests)
    return replace(_SPLIT_SETTINGS, split=terms)
