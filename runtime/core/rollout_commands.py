"""What people, gateways and alarms ask of a rollout, and who may ask for what."""

from __future__ import annotations

from runtime.core.cohorts import plan
from runtime.core.rollout_events import Ask, Command, Join, Role, Start
from runtime.core.rollout_states import RUNNING, STAGES, Cause, DeviceRecord, Phase
from runtime.core.rollout_turn import Turn
from runtime.core.rollout_waves import announce, go_on

_CAUSES = {
    Command.APPROVE: Cause.APPROVE,
    Command.PAUSE: Cause.PAUSE,
    Command.RESUME: Cause.RESUME,
    Command.ABORT: Cause.ABORT,
    Command.ROLL_BACK: Cause.ROLL_BACK,
    Command.SUPERSEDE: Cause.SUPERSEDE,
}
_STOPS = (Command.PAUSE, Command.ABORT, Command.ROLL_BACK)
_MAY = {
    Role.OPERATOR: tuple(Command),
    Role.CONTROLLER: (*_STOPS, Command.SUPERSEDE),
    Role.SECURITY: _STOPS,
    Role.GATEWAY: (Command.PAUSE,),
}


def on_ask(turn: Turn, event: Ask) -> None:
    """Does what was asked for, or says why not."""
    by, command = event.by, event.command
    turn.who = f"{by.role}:{by.name}"
    if command not in _MAY[by.role]:
        turn.refuse(f"a {by.role} may not {command}")
    elif command is Command.PROMOTE:
        _promote(turn, event.why)
    elif not turn.can(_CAUSES[command]):
        turn.refuse(f"a rollout that is {turn.rollout.phase} cannot {command}")
    elif command is Command.ABORT:
        turn.abort(event.why)
    elif command is Command.ROLL_BACK:
        turn.roll_back(event.why)
    else:
        was = turn.rollout.phase
        turn.go(_CAUSES[command], event.why)
        if command is Command.SUPERSEDE:
            turn.stop_assigning(event.why)
        turn.set(paused_from=was if command is Command.PAUSE else None)


def _promote(turn: Turn, why: str) -> None:
    rollout = turn.rollout
    if rollout.phase not in STAGES or not rollout.asked:
        turn.refuse("only where an operator was asked can one go on without the gate")
    else:
        go_on(turn, why)


def on_start(turn: Turn, event: Start) -> None:
    """Makes the plan of the waves, and begins with the first."""
    rollout, settings = turn.rollout, turn.rollout.settings
    turn.who = f"{event.by.role}:{event.by.name}"
    if rollout.phase is not Phase.APPROVED:
        turn.refuse(f"a rollout that is {rollout.phase} cannot start")
        return
    if event.by.role not in (Role.OPERATOR, Role.CONTROLLER):
        turn.refuse(f"a {event.by.role} may not start a rollout")
        return
    if len({one.id for one in event.devices}) != len(event.devices):
        turn.refuse("a device is named twice")
        return
    planned = plan(rollout.id, event.devices, settings.shares, settings.min_canary)
    known = {device.id: device for device in event.devices}
    turn.devices = {
        one: DeviceRecord(one, known[one].region, known[one].hardware, wave, since_s=turn.now_s)
        for wave, ids in enumerate(planned.waves)
        for one in ids
    }
    if not turn.devices:
        turn.refuse("there is no device that may take part")
        return
    in_shadow = settings.shadow is not None
    turn.go(Cause.START_IN_SHADOW if in_shadow else Cause.START, "the plan is made")
    turn.set(
        wave=-1 if in_shadow else 0,
        started_s=turn.now_s,
        wave_s=turn.now_s,
        left_out=planned.left_out,
    )
    announce(turn)


def on_join(turn: Turn, event: Join) -> None:
    """Puts a later device into the last wave."""
    rollout, device = turn.rollout, event.device
    if rollout.phase not in RUNNING or device.id in turn.devices:
        turn.refuse(f"{device.id} is in the plan, or there is none that runs")
    elif device.left_out:
        turn.set(left_out={**rollout.left_out, device.id: device.left_out})
    else:
        last = len(rollout.settings.shares) - 1
        turn.devices[device.id] = DeviceRecord(
            device.id, device.region, device.hardware, last, since_s=turn.now_s
        )
