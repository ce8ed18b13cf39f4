"""Drives experiments: each arm but the control is a rollout to the devices of that arm alone.

So everything that keeps rollouts safe holds here, too: hard faults and failures send the arm back,
numbers and signatures are the same, and a device has one change at a time. Nothing of it is judged
by the rollout's own gate: an experiment has its own question.
"""

from __future__ import annotations

import secrets

import structlog
from msgspec.structs import replace

from cloud_tier.rollouts.committing import Kept
from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.desk import Desk, done
from cloud_tier.rollouts.experiment_arms import Arms
from cloud_tier.rollouts.experiment_states import (
    CONTROL,
    ArmState,
    ExperimentRequest,
    ExperimentState,
    PromoteRequest,
    arm_name,
    moments_of,
    sizes_of,
    spec_of,
    values_of,
)
from cloud_tier.rollouts.experiment_store import ExperimentStore
from cloud_tier.rollouts.hearing import candidate
from cloud_tier.rollouts.requests import CommandRequest, StartRequest
from runtime.core.experiment import Outcome, answer, arm_of
from runtime.core.rollout_events import (
    Actor,
    Ask,
    Command,
    Role,
)
from runtime.core.rollout_states import ACTIVE, STAGES, Execution, Phase
from runtime.errors import RequestError, RolloutError

_log = structlog.get_logger()


class Experiments:
    """What people ask for, and what is looked at by itself.

    Args:
        controller: of rollouts.
        desk: where rollouts are started.
        retention_s: how long counts are kept.
    """

    def __init__(self, controller: Controller, desk: Desk, *, retention_s: float) -> None:
        self._controller, self._desk, self._retention_s = controller, desk, retention_s
        self.store = ExperimentStore(controller.store.file)
        self._arms = Arms(controller)

    async def start(self, request: ExperimentRequest) -> ExperimentState:
        """Divides the devices that have the control's version among the arms, and begins.

        Raises:
            RequestError: the question cannot be asked so.
            RolloutError: a version is not in the catalogue, the model is being changed, or an arm
                would have no device.
        """
        if request.observe_s > self._retention_s / 2:
            raise RequestError(
                f"observe_s is {self._retention_s / 2:g} at most: counts are kept for "
                f"{self._retention_s:g} s (rollouts.retention_s)"
            )
        name = request.id or f"{request.model}-ab-{secrets.token_hex(3)}"
        spec, control = spec_of(request, name), self._controller
        arms: dict[str, ArmState] = {}
        for one in (request.control, *request.arms):
            entry = await control.catalogue.entry(request.model, one.version)
            digests = tuple(entry.release(variant).name for variant in entry.variants)
            arm = arm_name(one.version) if arms else CONTROL
            rollout = f"{name}-{arm}" if arms else ""
            arms[arm] = ArmState(one.version, entry.path, digests, rollout)
        async with control.lock:
            await self._check_alone(request.model)
            now_s = control.clock.wall_s()
            rows = await control.register.devices()
            entry = await control.catalogue.entry(request.model, request.control.version)
            found = [(row, candidate(row, entry, now_s)) for row in rows]
            devices = {
                row.id: arm_of(spec, row.id)
                for row, device in found
                if device and not device.left_out and row.serving in arms[CONTROL].digests
            }
            empty = [one.name for one in spec.arms if one.name not in devices.values()]
            if empty:
                raise RolloutError(
                    f"{len(devices)} devices serve {arms[CONTROL].path}, and none of them would "
                    f"have {', '.join(empty)}: more devices, fewer arms, or other weights"
                )
            state = ExperimentState(
                spec, request.model, arms, devices, request.observe_s, now_s, request.by,
                request.why,
            )  # fmt: skip
            await self.store.add(control.name, state)
            for other in await control.store.live():
                if other.rollout.model == request.model:
                    # Devices are to serve something else now, and that is no failure of it.
                    await control.store.retire(control.name, other.rollout.id)
            await self._arms.begin(state)
            await control.send()
            return state

    async def stop(self, experiment_id: str, request: CommandRequest) -> ExperimentState:
        """Ends it: every device goes back to what it had.

        Raises:
            UnknownRolloutError: there is none.
            RolloutError: it has ended already.
        """
        async with self._controller.lock:
            state = await self._running(experiment_id)
            return await self._end(state, f"operator:{request.by}", request.why, "stopped")

    async def promote(self, experiment_id: str, request: PromoteRequest) -> ExperimentState:
        """Ends it, and drafts a rollout of an arm; devices that have it keep it.

        Raises:
            UnknownRolloutError: there is none.
            RolloutError: it has ended, nothing wins, or the control is to stay.
        """
        async with self._controller.lock:
            state = await self._running(experiment_id)
            won = state.answer.arm if state.answer and state.answer.outcome is Outcome.WINS else ""
            arm = request.arm or won
            if not arm:
                said = state.answer.why if state.answer else "nothing was observed yet"
                raise RolloutError(f"no arm wins ({said}): wait, stop it, or name one with --arm")
            if arm not in state.arms or arm == CONTROL:
                names = ", ".join(one for one in state.arms if one != CONTROL)
                raise RolloutError(f"{arm[:40]!r} is no arm to roll out; there are {names}")
            state = await self._end(
                state, f"operator:{request.by}", request.why, "promoted", keeps=arm
            )
        draft = await self._desk.start(
            StartRequest(
                model=state.model,
                version=state.arms[arm].version,
                by=request.by,
                why=f"{request.why} (experiment {state.id})"[:500],
                is_draft=True,
            )
        )
        async with self._controller.lock:
            return await self.store.save(
                self._controller.name,
                replace(state, draft=draft.rollout.id),
                self._controller.clock.wall_s(),
            )

    async def look(self) -> None:
        """Observes what is due, says what follows, and ends what does harm.

        Raises:
            RolloutError: the store was changed meanwhile; the next look begins again.
            StorageError: the store cannot be used.
        """
        async with self._controller.lock:
            if await self._controller.store.holder() != self._controller.name:
                return
            for state in await self.store.all():
                if not state.ended:
                    await self._look(state)

    async def _look(self, state: ExperimentState) -> None:
        rollouts = await self._arms.begin(state)
        for arm, kept in rollouts.items():
            if kept.rollout.phase not in (*STAGES, Phase.PAUSED):
                why = f"{arm} is {kept.rollout.phase}: {kept.rollout.id} says why"
                await self._end(state, f"controller:{self._controller.name}", why, "broken")
                return
        observed = {**state.observed, **await self._due(state, rollouts)}
        after = replace(state, observed=observed)
        said = answer(after.spec, moments_of(after), sizes_of(after))
        after = replace(after, answer=said)
        if after == state:
            return
        is_news = state.answer is None or state.answer.outcome is not said.outcome
        after = await self.store.save(
            self._controller.name,
            after,
            self._controller.clock.wall_s(),
            who=f"controller:{self._controller.name}",
            why=said.why,
            now=said.outcome.value if is_news else "",
        )
        if is_news:
            _log.info("experiment.says", experiment=state.id, outcome=said.outcome, why=said.why)
        if said.outcome is Outcome.GUARDRAIL_BROKEN:
            await self._end(after, f"controller:{self._controller.name}", said.why, "broken")

    async def _due(
        self, state: ExperimentState, rollouts: dict[str, Kept]
    ) -> dict[str, dict[str, float]]:
        """Observations of devices whose time is over since the look before."""
        found: dict[str, dict[str, float]] = {}
        register = self._controller.register
        # Reports of the last window are on their way.
        until_s = self._controller.clock.wall_s() - state.observe_s - register.bucket_s
        for device, arm in state.devices.items():
            from_s = _since_s(state, rollouts.get(arm), device)
            if device in state.observed or from_s is None or from_s > until_s:
                continue
            sums = await register.counted(
                (device,), from_s, from_s + state.observe_s, only=frozenset(state.arms[arm].digests)
            )
            values = values_of(state.spec, sums[device]) if device in sums else None
            if values is not None:
                found[device] = values
        return found

    async def _end(
        self, state: ExperimentState, who: str, why: str, how: str, *, keeps: str = ""
    ) -> ExperimentState:
        """Ends the rollouts of all arms, and says so; the devices of ``keeps`` keep its version."""
        control = self._controller
        role, _, by = who.partition(":")
        for name, arm in state.arms.items():
            if not arm.rollout:
                continue
            kept = await control.store.get(arm.rollout)
            if kept.rollout.phase not in (*STAGES, Phase.PAUSED, Phase.DONE):
                continue
            command = Command.ABORT if name == keeps else Command.ROLL_BACK
            ask = Ask(command, Actor(Role(role), by), f"{state.id} has ended: {why}")
            after, actions = done(kept, [ask], control.clock.wall_s())
            await control.commit(kept, after, actions)
        after_state = replace(state, ended=f"{how}: {why}")
        after_state = await self.store.save(
            control.name, after_state, control.clock.wall_s(), who=who, why=why, now=how
        )
        await control.send()
        return after_state

    async def _running(self, experiment_id: str) -> ExperimentState:
        state = await self.store.get(experiment_id)
        if state.ended:
            raise RolloutError(f"{experiment_id} has ended ({state.ended})")
        return state

    async def _check_alone(self, model: str) -> None:
        for other in await self._controller.store.live():
            if other.rollout.model == model and other.rollout.phase in ACTIVE:
                raise RolloutError(
                    f"{other.rollout.id} of the same model is {other.rollout.phase}: end it first"
                )


def _since_s(state: ExperimentState, kept: Kept | None, device: str) -> float | None:
    """Since when a device is in its arm; None while it is not."""
    if kept is None:
        return state.started_s
    record = kept.rollout.devices.get(device)
    is_there = record is not None and record.state is Execution.CONFIRMED
    return record.confirmed_s if record is not None and is_there else None
