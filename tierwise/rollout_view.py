"""A rollout in lines for people."""

from __future__ import annotations

import time
from typing import Any

from runtime.core.reasons import plain

_MAX_NAMES = 8


def report(status: dict[str, Any]) -> list[str]:
    """How it stands, in a dozen lines; at the end the devices that ever ran the version."""
    lines = [
        f"{status['id']}: {status['model']}/{status['version']} is {_phase(status)}",
        f"  started by {plain(status['by'])}: {plain(status['why'])}",
    ]
    lines += [_wave(one) for one in status["waves"] if one["devices"]]
    lines += _judgement(status)
    for hardware, why in status["stopped_hardware"].items():
        lines.append(f"  stopped on {plain(hardware)}: {plain(why)}")
    if status["left_out"]:
        lines.append(f"  left out: {len(status['left_out'])} ({_names(status['left_out'])})")
    if status["asked"] and not status["is_ended"]:
        lines.append(f"  you are asked: {plain(status['asked'])}")
    lines.append(f"  next: {status['next']}")
    lines.append(blast(status))
    return lines


def blast(status: dict[str, Any]) -> str:
    """Which devices ever ran the version."""
    ran = status["blast_radius"]
    named = f" ({_names(ran['devices'], ran['num'])})" if ran["num"] else ""
    return f"  ever ran it: {ran['num']} of {ran['of']} devices{named}"


def told_line(row: dict[str, Any]) -> str:
    """One line of the history."""
    what = f"{row['was']} -> {row['now']}" if row["was"] else row["now"]
    about = f"{plain(row['device'])} " if row["device"] else ""
    who, why = plain(row["who"]), plain(row["why"])
    return f"{row['seq']:>6} {clock_time(row['at_s'])} {about}{what}, by {who}: {why}"


def clock_time(at_s: float) -> str:
    """A Unix time as the wall shows it here, with the zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at_s)) if at_s else "-"


def _phase(status: dict[str, Any]) -> str:
    phase, stage = status["phase"].replace("_", " "), status["stage"]
    return f"{phase} ({stage})" if stage and stage != phase and not status["is_ended"] else phase


def _wave(wave: dict[str, Any]) -> str:
    states = ", ".join(f"{num} {state.replace('_', ' ')}" for state, num in wave["states"].items())
    return f"  {wave['stage']:<8} {wave['devices']:>5} devices: {states}"


def _judgement(status: dict[str, Any]) -> list[str]:
    found = status["judgement"]
    next_s = status["next_look_s"]
    when = f"; next at {clock_time(next_s)}" if next_s else ""
    if found is None:
        return [f"  no look yet{when}"] if when else []
    lines = [f"  look {found['look'] + 1} of {status['looks']}: {found['verdict']}{when}"]
    return lines + [f"    {plain(one['why'])}" for one in found["findings"]]


def _names(names: Any, num: int = 0) -> str:  # noqa: ANN401 - of a list or a mapping
    shown = [plain(one) for one in list(names)[:_MAX_NAMES]]
    more = (num or len(names)) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
