"""What devices say, and what their silence means.

Rules of this file:
  * only the loaded model makes a success: ``confirmed``, with the digest that serves;
  * heartbeats repeat that digest. One that serves something else is not in sync, whatever it said
    before, and counts as failed;
  * every state in flight has a deadline; silence beyond it is a failure. Who was not asked yet is
    neither late nor failed;
  * reports of another assignment, or of a state that is behind, change nothing.
"""

from __future__ import annotations

from runtime.core.rollout_events import Beat, Fault, Report, Unassign
from runtime.core.rollout_settings import Rollback
from runtime.core.rollout_states import (
    IN_FLIGHT,
    NOT_SERVING,
    REPORTS,
    STAGES,
    Cause,
    DeviceRecord,
    Execution,
    HardFault,
    Phase,
)
from runtime.core.rollout_turn import Turn

# Of what a device says no more than this is kept.
MAX_REASON, MAX_DIGEST = 200, 128

_SERVING = (Execution.TRIAL, Execution.CONFIRMED)
# Phases in which a confirmed device has to go on serving the new version.
_IN_FORCE = (*STAGES, Phase.PAUSED, Phase.DONE, Phase.ABORTING, Phase.ABORTED)


def on_beat(turn: Turn, beat: Beat) -> None:
    """A sign of life; devices that the rollout does not know are none of its business."""
    record = turn.devices.get(beat.device)
    if record is None:
        return
    record = _heard(turn, record, beat.serving)
    if record.state not in IN_FLIGHT and beat.seq > record.seq and not record.was_asked:
        record = turn.note(record, seq=beat.seq)
    has_answered = beat.seq >= record.seq and record.was_asked
    if has_answered and record.state in (Execution.RETURNING, Execution.TIMED_OUT):
        if record.wanted == record.before == beat.serving:
            turn.move(record, Execution.ROLLED_BACK, "serves its earlier version again")
    elif (
        has_answered
        and record.state is Execution.CONFIRMED
        and not record.is_in_sync
        and turn.rollout.phase in _IN_FORCE
    ):
        turn.move(record, Execution.ROLLED_BACK, f"serves {_short(beat.serving)} instead")


def on_report(turn: Turn, report: Report) -> None:
    """What a device says about what it was told."""
    record = turn.devices.get(report.device)
    if record is None or not record.was_asked or report.seq != record.seq:
        return
    turn.who = f"device:{record.id}"
    record = _heard(turn, record, report.serving or record.serving)
    # Who was told to run it in shadow has no leave to let it serve.
    has_leave = record.wanted == turn.rollout.target or report.state not in _SERVING
    if report.state in REPORTS.get(record.state, ()) and has_leave:
        _follow(turn, record, report)
    if report.fault is not None:
        on_fault(turn, Fault(report.device, report.fault))


def _follow(turn: Turn, record: DeviceRecord, report: Report) -> None:
    state, why = report.state, report.reason[:MAX_REASON] or f"says {report.state}"
    if state is Execution.CONFIRMED and report.serving != turn.rollout.target:
        state, why = Execution.ROLLED_BACK, f"serves {_short(report.serving)} instead"
    has_run = record.has_run or report.state in _SERVING
    record = turn.move(record, state, why, has_run=has_run)
    if state is Execution.CONFIRMED:
        turn.note(record, confirmed_s=turn.now_s)


def _heard(turn: Turn, record: DeviceRecord, serving: str) -> DeviceRecord:
    has_run = record.has_run or (record.was_asked and serving == turn.rollout.target)
    return turn.note(record, heard_s=turn.now_s, serving=serving[:MAX_DIGEST], has_run=has_run)


def _short(digest: str) -> str:
    """A digest as far as people compare it; what a device says is bounded."""
    return repr(digest[:12])


def on_fault(turn: Turn, event: Fault) -> None:
    """A fault without statistics: enough of them stop the hardware class, or everything."""
    record = turn.devices.get(event.device)
    if record is None or not record.was_asked or record.id in turn.rollout.faults:
        return
    turn.set(faults={**turn.rollout.faults, record.id: event.fault.value})
    stop_class(turn, record.hardware, event.fault)


def stop_class(turn: Turn, hardware: str, fault: HardFault) -> None:
    """Stops a class once it has enough faults, if there is still something to stop."""
    rollout = turn.rollout
    num = sum(turn.devices[one].hardware == hardware for one in rollout.faults)
    is_running = rollout.phase in (*STAGES, Phase.PAUSED, Phase.DONE)
    if hardware in rollout.stopped_hardware or num < rollout.settings.hard_faults:
        return
    if not is_running:
        return
    why = f"{fault} on {num} of {hardware}"
    turn.set(stopped_hardware={**rollout.stopped_hardware, hardware: why})
    is_auto = rollout.settings.rollback is Rollback.AUTO
    everyone = {record.hardware for record in turn.devices.values()}
    if everyone <= set(turn.rollout.stopped_hardware) and (is_auto or turn.can(Cause.ABORT)):
        breach(turn, why)
        return
    for record in tuple(turn.devices.values()):
        if record.hardware == hardware and is_auto:
            turn.send_back(record, why)
        elif record.hardware == hardware:
            turn.withdraw(record, why)
    turn.ask(f"{why}: {hardware} goes no further; a build for it has to be looked at")


def breach(turn: Turn, why: str) -> None:
    """Ends a rollout that does harm, in the way that was agreed."""
    if turn.rollout.settings.rollback is Rollback.AUTO:
        turn.roll_back(why)
    else:
        turn.abort(why)


def on_deadlines(turn: Turn) -> None:
    """Who has been silent for too long has failed; what it was told is taken back."""
    for record in tuple(turn.devices.values()):
        if record.state not in IN_FLIGHT:
            continue
        # A device in shadow has nothing more to say until it is told; signs of life are enough.
        is_shadow = record.state is Execution.SHADOW
        from_s = max(record.since_s, record.heard_s) if is_shadow else record.since_s
        limit_s = turn.rollout.settings.deadlines.of(record.state)
        if turn.now_s - from_s >= limit_s:
            why = f"silent for {limit_s:g} s while {record.state}"
            is_waiting = record.state in NOT_SERVING
            wanted = record.before if is_waiting else record.wanted
            turn.move(record, Execution.TIMED_OUT, why, wanted=wanted)
            if is_waiting:
                turn.actions.append(Unassign(record.id, record.seq))


def too_many_failures(turn: Turn) -> str:
    """Why the rollout has to end, empty where it has not; stopped classes are counted no more."""
    settings = turn.rollout.settings
    asked = [
        one
        for one in turn.devices.values()
        if one.was_asked and one.hardware not in turn.rollout.stopped_hardware
    ]
    num = sum(one.has_failed for one in asked)
    if num >= settings.min_failures and num > settings.max_failure_share * len(asked):
        return f"{num} of {len(asked)} devices asked have failed"
    return ""
