"""What the gates say about the running stage, and what follows from it."""

from __future__ import annotations

import math

from msgspec.structs import replace

from runtime.core.gate import Judgement, Verdict, judge
from runtime.core.rollout_devices import breach
from runtime.core.rollout_events import Figures, ShadowFigures
from runtime.core.rollout_states import RUNNING, Execution, Phase
from runtime.core.rollout_turn import Turn
from runtime.core.rollout_waves import due_look, go_on, stage_name

# Shares that differ by so many standard deviations differ, whatever bursts there are.
_SHADOW_Z = 3.0


def on_figures(turn: Turn, event: Figures) -> None:
    """Judges a look once; figures of another wave or look, or too early ones, are refused."""
    rollout, settings = turn.rollout, turn.rollout.settings
    is_due = event.look <= due_look(rollout, turn.now_s) and event.look > rollout.look
    if rollout.phase not in RUNNING or event.wave != rollout.wave or not is_due:
        turn.refuse(f"no figures of look {event.look} in wave {event.wave} are asked for")
        return
    alpha = settings.gate.alpha * settings.alpha_shares[rollout.wave]
    judgement = judge(event.metrics, replace(settings.gate, alpha=alpha), event.look, rollout.look)
    turn.set(look=event.look, judgement=judgement)
    if judgement.verdict is Verdict.BREACH:
        breach(turn, f"{stage_name(rollout)}: {judgement.why}")
    elif rollout.phase is not Phase.PAUSED:
        decide(turn)


def decide(turn: Turn) -> None:
    """Goes on, or asks an operator after the last look; a pause has put that off."""
    rollout = turn.rollout
    judgement: Judgement | None = rollout.judgement
    if judgement is None:
        return
    if judgement.verdict is Verdict.HEALTHY:
        go_on(turn, f"{stage_name(rollout)}: {judgement.why}")
    elif rollout.look == len(rollout.settings.gate.looks_s) - 1:
        turn.ask(f"{stage_name(rollout)}, last look: {judgement.why or 'no figures'}")


def on_shadow(turn: Turn, event: ShadowFigures) -> None:
    """Disagreement surely below what is allowed goes on, surely above ends it."""
    rollout, shadow = turn.rollout, turn.rollout.settings.shadow
    counts_fit = 0 <= event.disagreements <= event.requests
    if rollout.phase is not Phase.SHADOW or shadow is None or not counts_fit:
        turn.refuse("no such figures of a shadow are asked for")
        return
    states = [one.state for one in turn.members(0)]
    if Execution.SHADOW not in states or event.requests < shadow.min_requests:
        return
    share = event.disagreements / event.requests
    spread = math.sqrt(shadow.max_disagreement * (1 - shadow.max_disagreement) / event.requests)
    z = (share - shadow.max_disagreement) / spread
    said = f"{100 * share:.2f} % of {event.requests} answers in shadow differ"
    if z > _SHADOW_Z:
        breach(turn, said)
    elif z < -_SHADOW_Z:
        go_on(turn, said)


def hold_shadow(turn: Turn) -> None:
    """Asks an operator when a shadow has not become clear in its time."""
    rollout, shadow = turn.rollout, turn.rollout.settings.shadow
    is_late = shadow is not None and turn.now_s - rollout.wave_s >= shadow.max_s
    if rollout.phase is Phase.SHADOW and is_late:
        turn.ask("shadow: too little agreement is known; promote or abort")
