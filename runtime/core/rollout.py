"""A staged rollout as a function: ``step(rollout, event, now_s) -> (rollout, actions)``.

Whoever drives it stores the new state under the revision of the old one (compare and swap), and
only then does the actions. After a crash between the two ``outstanding`` says again what devices
are to have been told. Rollouts are stepped one after another by one controller, so that
``conflicts`` sees what the others have in flight.

Rules of this file:
  * a stage goes on when its gate is healthy, and never by time alone; where there is too little to
    go by, an operator decides;
  * a breach, too many failures, or faults in all hardware classes end the rollout, also while it is
    paused;
  * gateways may pause, and nothing else; nobody goes on past an alarm;
  * nothing is raised for an event that comes at the wrong time: it is refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from runtime.core.rollout_commands import on_ask, on_join, on_start
from runtime.core.rollout_devices import (
    breach,
    on_beat,
    on_deadlines,
    on_fault,
    on_report,
    too_many_failures,
)
from runtime.core.rollout_events import (
    AnyAction,
    AnyEvent,
    Ask,
    Fault,
    Figures,
    Heartbeats,
    Join,
    Report,
    RollBack,
    ShadowFigures,
    Start,
    TakeOver,
    Tick,
    Unassign,
)
from runtime.core.rollout_judging import decide, hold_shadow, on_figures, on_shadow
from runtime.core.rollout_states import (
    ACTIVE,
    IN_FLIGHT,
    RUNNING,
    STAGES,
    Execution,
    Phase,
    Rollout,
)
from runtime.core.rollout_turn import Turn
from runtime.core.rollout_waves import (
    assign,
    assignment,
    fill,
    measure,
)

# Of these the controller does not know that they are back.
_LEAVING = (Execution.RETURNING, Execution.TIMED_OUT)


def step(rollout: Rollout, event: AnyEvent, now_s: float) -> tuple[Rollout, tuple[AnyAction, ...]]:
    """What a rollout becomes by an event at a Unix time, and what is to be done.

    The revision grows by one if anything has changed. Time may stand still, and may go back by as
    much as clocks are set back: deadlines then end later.
    """
    turn = Turn(rollout, now_s, f"controller:{rollout.holder}")
    _HANDLERS[type(event)](turn, event)
    if turn.rollout.phase in RUNNING:
        why = too_many_failures(turn)
        if why:
            breach(turn, why)
    turn.settle()
    return turn.result()


def outstanding(rollout: Rollout) -> tuple[AnyAction, ...]:
    """What every device is to have been told last: do it again after a crash, it does no harm."""
    told: list[AnyAction] = []
    for record in rollout.devices.values():
        if record.state is Execution.OFFERED:
            told.append(assignment(rollout, record))
        elif record.was_asked and record.state is Execution.CANCELLED:
            told.append(Unassign(record.id, record.seq))
        elif record.state in _LEAVING and record.wanted == record.before:
            told.append(RollBack(record.id, record.before, record.seq))
    return tuple(told)


def conflicts(rollout: Rollout, others: Iterable[Rollout]) -> Tick:
    """A tick that knows what other rollouts have in flight.

    A device has one change at a time, and so has a cascade: of its rollouts the one that began
    first goes on, paused or not, and later ones wait until it has ended.
    """
    busy: set[str] = set()
    is_group_busy = False
    for other in others:
        if other.id == rollout.id:
            continue
        busy |= {one.id for one in other.devices.values() if one.state in IN_FLIGHT}
        began_before = (other.started_s, other.id) < (rollout.started_s, rollout.id)
        if other.group == rollout.group and other.phase in ACTIVE and began_before:
            is_group_busy = True
    return Tick(rollout.holder, frozenset(busy), is_group_busy)


def _tick(turn: Turn, tick: Tick) -> None:
    if tick.holder != turn.rollout.holder:
        turn.refuse(f"{turn.rollout.holder!r} holds the rollout, not {tick.holder!r}")
        return
    on_deadlines(turn)
    if turn.rollout.phase in RUNNING and too_many_failures(turn):
        return
    if turn.rollout.phase in (Phase.CANARY, Phase.WAVE):
        fill(turn)
        decide(turn)
    if turn.rollout.phase in STAGES:
        assign(turn, tick)
        hold_shadow(turn)
    if turn.rollout.phase in RUNNING:
        measure(turn)


def _on_beats(turn: Turn, event: Heartbeats) -> None:
    for beat in event.beats:
        on_beat(turn, beat)


def _take_over(turn: Turn, event: TakeOver) -> None:
    turn.set(holder=event.holder, epoch=turn.rollout.epoch + 1)


_HANDLERS: dict[type[AnyEvent], Callable[[Turn, Any], None]] = {
    Ask: on_ask,
    Start: on_start,
    Join: on_join,
    TakeOver: _take_over,
    Heartbeats: _on_beats,
    Report: on_report,
    Fault: on_fault,
    Figures: on_figures,
    ShadowFigures: on_shadow,
    Tick: _tick,
}
