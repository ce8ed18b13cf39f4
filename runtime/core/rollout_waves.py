"""Who is asked next, when a wave is judged, and when the next one begins.

Rules of this file:
  * only devices of the waves so far are asked, and of these only who was heard lately;
  * a region is left alone outside its maintenance windows, before its turn in a wave, while too
    much of it is offline, and while enough of its devices are on their way;
  * a wave is judged once all of it have ended, or nobody is on the way and the rest is offline;
  * the control arm are devices that did not change: not asked yet or, in the last wave, those of
    earlier waves; the window before the change then begins when the wave before was full.
"""

from __future__ import annotations

from collections import Counter

from runtime.core.cohorts import stagger_s
from runtime.core.rollout_events import Announce, Assign, Measure, Tick
from runtime.core.rollout_states import (
    IN_FLIGHT,
    TERMINAL,
    Cause,
    DeviceRecord,
    Execution,
    Phase,
    Rollout,
)
from runtime.core.rollout_turn import Turn

_MINUTE_S = 60.0


def stage_name(rollout: Rollout) -> str:
    """What people call the stage: shadow, canary, or the share of the fleet."""
    if rollout.wave > 0:
        return f"{100 * rollout.settings.shares[rollout.wave]:g} %"
    return Phase.CANARY.value if rollout.wave == 0 else Phase.SHADOW.value


def opens_s(rollout: Rollout, region: str) -> float:
    """When a region's turn in the running wave begins; canaries do not wait."""
    if rollout.wave < 1:
        return rollout.wave_s
    return rollout.wave_s + stagger_s(rollout.id, region, rollout.settings.stagger_window_s)


def announce(turn: Turn) -> None:
    """Tells the gateways of the wave what will be fetched through them."""
    rollout = turn.rollout
    fresh = {one.region for one in turn.members(max(0, rollout.wave)) if _is_waiting(turn, one)}
    for region in sorted(fresh):
        turn.actions.append(
            Announce(region, rollout.target, stage_name(rollout), opens_s(rollout, region))
        )


def _is_waiting(turn: Turn, record: DeviceRecord) -> bool:
    if record.state is Execution.SHADOW:
        return turn.rollout.phase is not Phase.SHADOW
    return record.state is Execution.PENDING


def _is_online(turn: Turn, record: DeviceRecord) -> bool:
    silent_s = turn.now_s - record.heard_s
    return bool(record.serving) and silent_s <= turn.rollout.settings.offline_after_s


def assign(turn: Turn, tick: Tick) -> None:
    """Asks as many devices as may be asked now."""
    rollout, settings = turn.rollout, turn.rollout.settings
    if tick.is_group_busy:
        return
    records = tuple(turn.devices.values())
    recent = sum(turn.now_s - one.assigned_s < _MINUTE_S for one in records)
    moving = Counter(one.region for one in records if _is_moving(one))
    closed = _closed(turn)
    for record in turn.members(max(0, rollout.wave)):
        if recent >= settings.assignments_per_minute:
            return
        if not _is_waiting(turn, record) or record.id in tick.busy or record.region in closed:
            continue
        if record.hardware in rollout.stopped_hardware or not _is_online(turn, record):
            continue
        if record.serving == rollout.target and not record.was_asked:
            turn.move(record, Execution.CONFIRMED, "served it before", wanted=rollout.target)
        elif moving[record.region] < settings.max_in_flight:
            _ask(turn, record)
            moving[record.region] += 1
            recent += 1


def _is_moving(record: DeviceRecord) -> bool:
    return record.state in IN_FLIGHT and record.state is not Execution.SHADOW


def _closed(turn: Turn) -> set[str]:
    """Regions that are left alone now."""
    settings, now_s = turn.rollout.settings, turn.now_s
    whole = Counter(one.region for one in turn.devices.values())
    offline = Counter(one.region for one in turn.devices.values() if not _is_online(turn, one))
    closed = set()
    for region, num in whole.items():
        windows = settings.windows.get(region, ())
        is_outside = bool(windows) and not any(window.is_open(now_s) for window in windows)
        is_early = now_s < opens_s(turn.rollout, region)
        if is_outside or is_early or offline[region] > settings.max_offline_share * num:
            closed.add(region)
    return closed


def _ask(turn: Turn, record: DeviceRecord) -> None:
    rollout = turn.rollout
    record = turn.move(
        record,
        Execution.OFFERED,
        f"its turn: {stage_name(rollout)}",
        before=record.before or record.serving,
        wanted=record.serving if rollout.phase is Phase.SHADOW else rollout.target,
        seq=record.seq + 1,
        assigned_s=turn.now_s,
        was_asked=True,
    )
    turn.actions.append(assignment(rollout, record))


def assignment(rollout: Rollout, record: DeviceRecord) -> Assign:
    """What a device in ``offered`` is told, also when it is told again."""
    is_shadow = record.wanted != rollout.target
    return Assign(
        record.id,
        rollout.target,
        Phase.SHADOW.value if is_shadow else stage_name(rollout),
        record.seq,
        record.since_s + rollout.settings.deadlines.offered,
    )


def fill(turn: Turn) -> None:
    """Begins to judge the running wave when nobody is on the way to it any more."""
    rollout, settings = turn.rollout, turn.rollout.settings
    if rollout.soak_s is not None:
        return
    members = list(turn.members(rollout.wave))
    if any(_is_moving(one) for one in members):
        return
    fresh = [one for one in members if one.wave == rollout.wave]
    waiting = [one for one in fresh if _is_waiting(turn, one)]
    is_over = turn.now_s >= rollout.wave_s + settings.fill_s
    rest_is_offline = len(waiting) <= settings.max_offline_share * len(fresh) and not any(
        _is_online(turn, one) for one in waiting
    )
    if waiting and not is_over and not rest_is_offline:
        return
    if any(_is_treated(one) for one in fresh):
        turn.set(soak_s=turn.now_s)
    elif all(one.state in TERMINAL and not one.was_asked for one in fresh):
        go_on(turn, f"{stage_name(rollout)}: nobody had to change")
    else:
        turn.ask(f"{stage_name(rollout)}: nobody runs it; promote, abort, or wait for devices")


def _is_treated(record: DeviceRecord) -> bool:
    return record.state is Execution.CONFIRMED and record.was_asked


def due_look(rollout: Rollout, now_s: float) -> int:
    """The latest look that is due and was not taken; -1 where there is none."""
    if rollout.soak_s is None:
        return -1
    looks_s = rollout.settings.gate.looks_s
    due = sum(rollout.soak_s + one <= now_s for one in looks_s) - 1
    return due if due > rollout.look else -1


def measure(turn: Turn) -> None:
    """Asks for the figures of the look that is due, again with every tick until they come."""
    rollout, settings = turn.rollout, turn.rollout.settings
    look = due_look(rollout, turn.now_s)
    if look < 0 or rollout.soak_s is None:
        return
    from_s = rollout.wave_s - settings.baseline_s
    if rollout.wave == len(settings.shares) - 1:
        from_s = max(from_s, rollout.last_soak_s)
    treated = [
        one
        for one in turn.members(rollout.wave)
        if one.wave == rollout.wave and _is_treated(one) and one.confirmed_s <= rollout.soak_s
    ]
    control = [
        one
        for one in turn.devices.values()
        if not one.was_asked or (_is_treated(one) and one.confirmed_s <= from_s)
    ]
    turn.actions.append(
        Measure(
            rollout.wave,
            look,
            tuple(one.id for one in treated),
            tuple(one.id for one in control),
            before_from_s=from_s,
            before_to_s=rollout.wave_s,
            after_from_s=rollout.soak_s,
            after_to_s=rollout.soak_s + settings.gate.looks_s[look],
        )
    )


def go_on(turn: Turn, why: str) -> None:
    """Begins the next wave that has devices, or ends the rollout."""
    rollout = turn.rollout
    later = [one.wave for one in turn.devices.values() if one.wave > rollout.wave]
    if later:
        turn.go(Cause.GO_ON, why)
        turn.set(
            wave=min(later),
            wave_s=turn.now_s,
            last_soak_s=rollout.last_soak_s if rollout.soak_s is None else rollout.soak_s,
            soak_s=None,
            look=-1,
            judgement=None,
            asked="",
        )
        announce(turn)
        return
    turn.go(Cause.FINISH, why)
    turn.set(asked="")
    turn.stop_assigning("not reached before the rollout was done")
