"""Drives experiments: each arm but the control is a rollout to the devices of that arm alone.

So everything that keeps rollouts safe holds here, too: hard faults and failures send the arm back,
numbers and signatures are the same, and a device has one change at a time. Nothing of it is judged
by the rollout's own gate: an experiment has its own question.
"""

from __future__ import annotations

import secrets

import structlog
from msgspec.structs import replace

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
    pairs_of,
    sizes_of,
    spec_of,
)
from cloud_tier.rollouts.experiment_store import ExperimentStore
from cloud_tier.rollouts.hearing import candidate
from cloud_tier.rollouts.observing import Observer, given_up_somewhere
from cloud_tier.rollouts.requests import CommandRequest, StartRequest
from runtime.core.experiment import Outcome, answer, arm_of
from runtime.core.rollout_events import (
    Actor,
    Ask,
    Command,
    Role,
)
from runtime.core.rollout_states import ACTIVE, STAGES, Phase
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
        self._observer = Observer(controller)

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
                row.id: spec.arms[1].name if request.split_by else arm_of(spec, row.id)
                for row, device in found
                if device and not device.left_out and row.serving in arms[CONTROL].digests
            }
            empty = [
                one.name
                for one in spec.arms[bool(request.split_by) :]
                if one.name not in devices.values()
            ]
            if empty:
                raise RolloutError(
                    f"{len(devices)} devices serve {arms[CONTROL].path}, and none of them would "
                    f"have {', '.join(empty)}: more devices, fewer arms, or other weights"
                )
            state = ExperimentState(
                spec, request.model, arms, devices, request.observe_s, now_s, request.by,
                request.why, split_by=request.split_by,
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
                # What has answered requests of every device has been seen enough in shadow.
                settings={"shadow": None} if state.split_by else {},
            )
        )
        async with self._controller.lock:
            return await self.store.save(
                self._controller.name,
                replace(state, draft=draft.rollout.id),
                self._controller.clock.wall_s(),
            )

    async def unkeyed(self, state: ExperimentState) -> int:
        """Requests of the experiment's devices since its start that were in no arm."""
        register, now_s = self._controller.register, self._controller.clock.wall_s()
        none = frozenset({""})
        found = await register.counted(tuple(state.devices), state.started_s, now_s, only=none)
        return sum(sums.requests for sums in found.values())

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
            if state.split_by and (why := given_up_somewhere(kept.rollout)):
                await self._end(state, f"controller:{self._controller.name}", why, "broken")
                return
        if state.split_by:
            after = await self._observer.observed_pairs(state, rollouts)
        else:
            after = await self._observer.observed(state, rollouts)
        sizes = None if state.split_by else sizes_of(after)
        said = answer(after.spec, moments_of(after), sizes, pairs_of(after))
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
            # What was split serves nowhere: it is withdrawn, and no stain on the version.
            command = Command.ABORT if name == keeps or state.split_by else Command.ROLL_BACK
            if name == keeps and state.split_by:
                # Devices go on as they are until the rollout of the version comes to them.
                command = Command.PAUSE
            if command is Command.PAUSE and kept.rollout.phase is Phase.PAUSED:
                await control.store.retire(control.name, kept.rollout.id)
                continue
            ask = Ask(command, Actor(Role(role), by), f"{state.id} has ended: {why}")
            after, actions = done(kept, [ask], control.clock.wall_s())
            await control.commit(kept, after, actions)
            if command is Command.PAUSE:
                await control.store.retire(control.name, kept.rollout.id)
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
