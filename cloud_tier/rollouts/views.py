"""How a rollout stands, for people and programs: JSON that only grows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from cloud_tier.rollouts.committing import AuditRow, Kept
from cloud_tier.rollouts.register import DeviceRow
from runtime.core.rollout_states import Execution, Phase, Rollout
from runtime.core.rollout_waves import stage_name

# Phases in which nothing more happens by itself.
ENDED = (Phase.DONE, Phase.ABORTED, Phase.ROLLED_BACK, Phase.SUPERSEDED)
_MAX_NAMES = 1000
_NEXT = {
    Phase.DRAFT: "approve ID (by somebody else), or abort ID",
    Phase.PAUSED: "resume ID, abort ID, or rollback ID",
    Phase.DONE: "rollback ID returns every device to what it had before",
    Phase.ABORTED: "rollback ID returns those that run it; or start another rollout",
    Phase.ROLLING_BACK: "wait: devices that are away return when they are back",
    Phase.ROLLED_BACK: "history ID says why; publish a better version",
    Phase.SUPERSEDED: "a later rollout of the model decides",
}
_GOES_ON = "wait: it goes on when its gate is healthy"
_ASKED = "promote ID goes on without the gate; abort ID or rollback ID ends it"


def summary(kept: Kept) -> dict[str, Any]:
    """A rollout in a line."""
    rollout = kept.rollout
    states = Counter(one.state for one in rollout.devices.values())
    return {
        "id": rollout.id,
        "model": rollout.model,
        "version": kept.entry.version,
        "region": kept.entry.region or "",
        "phase": rollout.phase.value,
        "stage": _stage(rollout),
        "asked": rollout.asked,
        "devices": len(rollout.devices),
        "confirmed": states[Execution.CONFIRMED],
        "failed": sum(one.has_failed for one in rollout.devices.values()),
        "has_run": sum(one.has_run for one in rollout.devices.values()),
        "created_s": kept.created_s,
        "by": kept.by,
        "why": kept.why,
    }


def status(kept: Kept, *, with_devices: bool = False) -> dict[str, Any]:
    """Everything that is known of a rollout; with its devices, if asked for."""
    rollout = kept.rollout
    ran = sorted(one.id for one in rollout.devices.values() if one.has_run)
    said: dict[str, Any] = {
        **summary(kept),
        "target": rollout.target,
        "group": rollout.group,
        "revision": rollout.revision,
        "holder": rollout.holder,
        "started_s": rollout.started_s,
        "is_ended": rollout.phase in ENDED,
        "next": _next(rollout),
        "waves": _waves(rollout),
        "judgement": msgspec.to_builtins(rollout.judgement),
        "looks": len(rollout.settings.gate.looks_s),
        "next_look_s": _next_look_s(rollout),
        "left_out": dict(list(rollout.left_out.items())[:_MAX_NAMES]),
        "stopped_hardware": rollout.stopped_hardware,
        "faults": rollout.faults,
        "blast_radius": {
            "num": len(ran),
            "of": len(rollout.devices),
            "devices": ran[:_MAX_NAMES],
        },
        "settings": msgspec.to_builtins(rollout.settings),
    }
    if with_devices:
        said["executions"] = [msgspec.to_builtins(one) for one in rollout.devices.values()]
    return said


def audit_line(row: AuditRow) -> dict[str, Any]:
    """One line of the history."""
    return row._asdict()


def device_line(row: DeviceRow) -> dict[str, Any]:
    """What a device has said last."""
    return row._asdict()


def _stage(rollout: Rollout) -> str:
    return stage_name(rollout) if rollout.devices else ""


def _next(rollout: Rollout) -> str:
    if rollout.settings.split is not None and rollout.phase is Phase.SHADOW:
        return "it divides requests for as long as its experiment: `tierwise experiment list`"
    hint = _ASKED if rollout.asked and rollout.phase in (
        Phase.SHADOW, Phase.CANARY, Phase.WAVE
    ) else _NEXT.get(rollout.phase, _GOES_ON)  # fmt: skip
    return hint.replace("ID", rollout.id)


def _waves(rollout: Rollout) -> list[dict[str, Any]]:
    waves = []
    for wave, share in enumerate(rollout.settings.shares):
        members = [one for one in rollout.devices.values() if one.wave == wave]
        states = Counter(one.state.value for one in members)
        waves.append(
            {
                "stage": "canary" if not wave else f"{100 * share:g} %",
                "devices": len(members),
                "states": dict(sorted(states.items())),
            }
        )
    return waves


def _next_look_s(rollout: Rollout) -> float | None:
    looks_s = rollout.settings.gate.looks_s
    is_judged = rollout.phase in (Phase.CANARY, Phase.WAVE) and rollout.soak_s is not None
    if not is_judged or rollout.look + 1 >= len(looks_s):
        return None
    return (rollout.soak_s or 0.0) + looks_s[rollout.look + 1]
