"""Where people ask for something: start a rollout, approve, pause, resume, abort, return, go on."""

from __future__ import annotations

import secrets

from cloud_tier.rollouts.committing import Kept
from cloud_tier.rollouts.controller import Controller, folded
from cloud_tier.rollouts.requests import CommandRequest, StartRequest, settings_of
from runtime.core.rollout_events import (
    Actor,
    AnyAction,
    AnyEvent,
    Ask,
    Command,
    Refuse,
    Role,
    Start,
    TakeOver,
)
from runtime.core.rollout_states import ACTIVE, Phase, Rollout
from runtime.errors import RequestError, RolloutError

COMMANDS = {
    "approve": Command.APPROVE,
    "pause": Command.PAUSE,
    "resume": Command.RESUME,
    "abort": Command.ABORT,
    "rollback": Command.ROLL_BACK,
    "promote": Command.PROMOTE,
}


class Desk:
    """Does what operators ask the controller for; who they are is checked before this."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def start(self, request: StartRequest) -> Kept:
        """Drafts a rollout, and begins it unless it is to be approved first.

        Raises:
            RequestError: the settings cannot be used.
            RolloutError: the version is not in the catalogue, another rollout of the model is on
                its way, or there is no device for it.
            TierwiseError: catalogue or store cannot be used.
        """
        settings, control = settings_of(request.settings), self._controller
        entry = await control.catalogue.entry(request.model, request.version, request.region)
        async with control.lock:
            rollout = Rollout(
                request.id or f"{entry.model}-{entry.version}-{secrets.token_hex(3)}",
                entry.model,
                entry.path,
                request.group or entry.model.removesuffix(f"-{entry.tier.value}"),
                settings,
                holder=control.name,
            )
            now_s = control.clock.wall_s()
            kept = Kept(rollout, entry, now_s, request.by, request.why, request.clears_bad)
            if request.is_draft:
                await control.store.add(control.name, kept)
                return kept
            # So that what cannot begin is not drafted either.
            await self._check_alone(kept)
            events = await self._beginning(kept, request.by, request.why)
            after, actions = done(kept, events, now_s)
            await control.store.add(control.name, kept)
            await self._end_earlier(kept)
            kept = await control.commit(kept, after, actions)
            await control.send()
            return kept

    async def command(self, rollout_id: str, name: str, request: CommandRequest) -> Kept:
        """What a rollout has become by a command.

        Raises:
            RequestError: there is no such command.
            UnknownRolloutError: there is no such rollout.
            RolloutError: it cannot do that now; the text says why.
            StorageError: the store cannot be used.
        """
        if name not in COMMANDS:
            raise RequestError(f"no command {name[:40]!r}: there are {', '.join(COMMANDS)}")
        control = self._controller
        async with control.lock:
            kept = await control.store.get(rollout_id)
            ask = Ask(COMMANDS[name], Actor(Role.OPERATOR, request.by), request.why)
            events: list[AnyEvent] = [ask]
            if ask.command is Command.APPROVE:
                if kept.rollout.phase is Phase.DRAFT and request.by == kept.by:
                    raise RolloutError(f"{kept.by} has drafted it: somebody else approves")
                await self._check_alone(kept)
                events = await self._beginning(kept, request.by, request.why)
            after, actions = done(kept, events, control.clock.wall_s())
            if ask.command is Command.APPROVE:
                await self._end_earlier(kept)
            kept = await control.commit(kept, after, actions)
            await control.send()
            return kept

    async def _beginning(self, kept: Kept, by: str, why: str) -> list[AnyEvent]:
        actor = Actor(Role.OPERATOR, by)
        devices, beats = await self._controller.plan(kept)
        if not devices:
            raise RolloutError(
                f"no device has reported that it runs {kept.rollout.model}: look whether agents "
                "are connected, and have updates switched on"
            )
        holder = TakeOver(self._controller.name)
        return [holder, Ask(Command.APPROVE, actor, why), Start(actor, devices), beats]

    async def _check_alone(self, kept: Kept) -> None:
        for other in await self._controller.store.live():
            if _is_same_model(kept, other) and other.rollout.phase in ACTIVE:
                raise RolloutError(
                    f"{other.rollout.id} of the same model is {other.rollout.phase}: abort it, "
                    "roll it back, or wait until it is done"
                )

    async def _end_earlier(self, kept: Kept) -> None:
        control = self._controller
        actor = Actor(Role.CONTROLLER, control.name)
        for other in await control.store.live():
            if not _is_same_model(kept, other) or other.rollout.id == kept.rollout.id:
                continue
            if other.rollout.phase is Phase.ROLLED_BACK:
                await control.store.retire(control.name, other.rollout.id)
                continue
            ask = Ask(Command.SUPERSEDE, actor, f"{kept.rollout.id} begins")
            after, actions = done(other, [ask], control.clock.wall_s())
            await control.commit(other, after, actions)


def _is_same_model(one: Kept, other: Kept) -> bool:
    return (one.rollout.model, one.entry.region) == (other.rollout.model, other.entry.region)


def done(kept: Kept, events: list[AnyEvent], now_s: float) -> tuple[Rollout, list[AnyAction]]:
    """A rollout after what was asked for.

    Raises:
        RolloutError: it is refused.
    """
    after, actions = folded(kept.rollout, events, now_s)
    refused = [one.why for one in actions if isinstance(one, Refuse)]
    if refused:
        raise RolloutError(f"{kept.rollout.id}: {refused[0]}")
    return after, actions
