"""What operators' overrides make of requests and answers.

Rules of this file:
  * an override holds where its scope reaches, as a stop does, and until its time is over;
  * of several pins and tiers the one said last decides; all others add up, in the order in which
    they were said;
  * a ban never leaves an answer with a banned label: where no other label is left there is none;
  * what an override has touched names it, and has no fitted guarantee any more.

Labels that a model does not have are no labels of it: they change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.control_state import ControlState, Override, OverrideKind
from runtime.core.confidence import Floats
from runtime.core.control import Known, Subject, reaches, told_of
from runtime.core.rules import Ruling
from runtime.messages import ContextValue, Tier

PREFIX = "override:"
# The logarithm of next to nothing, above which half floats stay finite.
_GONE = -1e4
# So far apart may the clocks of an operator and of whoever serves a region be.
TOLERANCE_S = 60.0
# How late the end of an override may be noticed.
_LOOK_S = 0.5
_MAX_SUBJECTS = 16
# When each override of each region was heard of first, in the time of this process.
Heard = Mapping[tuple[str, str, float], float]


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Scores ``(batch, labels)`` after bans and boosts, and which overrides have changed them."""

    scores: Floats
    by: tuple[Override, ...]
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Treated:
    """What becomes of an answer: the label that goes out, None where it is kept back."""

    label: int | None
    by: tuple[Override, ...]


def key_of(region: str, override: Override) -> tuple[str, str, float]:
    """One saying of one override: said again, it is another one."""
    return region, override.id, override.wall_s


def in_force(known: Known, subject: Subject, heard: Heard, now_s: float) -> tuple[Override, ...]:
    """What holds for a process, in the order in which it was said.

    ``heard`` and ``now_s`` are of one clock; what is not in ``heard`` is heard just now.
    """
    found = [
        override
        for region in sorted(known)
        for override in known[region].overrides
        if reaches(override.scope, override.target, subject)
        and now_s - heard.get(key_of(region, override), now_s) < override.lasts_s
    ]
    return tuple(sorted(found, key=lambda one: one.wall_s))


class HeardOverrides:
    """What is known, and when it was heard first; asked for every request, so it remembers.

    Args:
        known: as it is now.
        before: when what was known before was heard first.
        now_s: by the clock of ``before``. What is from later was heard just now: it was set back.
    """

    def __init__(self, known: Known, before: Heard, now_s: float) -> None:
        self._known = known
        self.heard = {
            key: min(before.get(key, now_s), now_s)
            for region, state in known.items()
            for key in (key_of(region, one) for one in state.overrides)
        }
        self._found: dict[Subject, tuple[float, tuple[Override, ...]]] = {}

    def of(self, subject: Subject, now_s: float) -> tuple[Override, ...]:
        """What holds for a process now."""
        since_s, found = self._found.get(subject, (math.inf, ()))
        # Looked at anew now and then, and when the clock has been set back.
        if not since_s <= now_s < since_s + _LOOK_S:
            found = in_force(self._known, subject, self.heard, now_s)
            if len(self._found) >= _MAX_SUBJECTS:
                self._found.clear()
            self._found[subject] = now_s, found
        return found


def without_ended(state: ControlState, wall_s: float) -> ControlState | None:
    """The region's state without what has ended; None where nothing has.

    By the wall clock of whoever serves the region, who keeps it set.
    """
    kept = tuple(one for one in state.overrides if wall_s < one.wall_s + one.lasts_s + TOLERANCE_S)
    if len(kept) == len(state.overrides):
        return None
    return ControlState(
        state.region, state.sequence + 1, state.stops, "tierwise", "time is over", overrides=kept
    )


def with_override(
    state: ControlState | None, region: str, override: Override, *, sequence: int
) -> ControlState:
    """A region's state with one more override, in place of one with the same id."""
    stops = () if state is None else state.stops
    kept = () if state is None else tuple(o for o in state.overrides if o.id != override.id)
    return ControlState(
        region, sequence, stops, override.by, override.why, overrides=(*kept, override)
    )


def without_overrides(
    state: ControlState, ids: Iterable[str], *, sequence: int, by: str, why: str
) -> ControlState:
    """A region's state without some of its overrides."""
    gone = set(ids)
    kept = tuple(one for one in state.overrides if one.id not in gone)
    return ControlState(state.region, sequence, state.stops, by, why, overrides=kept)


def ruling_of(
    overrides: Sequence[Override],
    context: Mapping[str, ContextValue],
    labels: Sequence[str],
    tiers: Iterable[Tier],
) -> tuple[Ruling, Override] | None:
    """The pin or the tier that was said last and holds for a request; None where none does.

    ``tiers`` are this one and those above it: a request does not go down.
    """
    there = {tier.value: tier for tier in tiers}
    for one in reversed(overrides):
        if any(context.get(name) != value for name, value in one.context.items()):
            continue
        if one.kind is OverrideKind.PIN and one.answer in labels:
            return Ruling(PREFIX + one.id, _when(one), label=labels.index(one.answer)), one
        if one.kind is OverrideKind.TIER and one.tier in there:
            return Ruling(PREFIX + one.id, _when(one), tier=there[one.tier]), one
    return None


def adjusted(
    scores: Floats, labels: Sequence[str], overrides: Sequence[Override]
) -> Adjusted | None:
    """Logits after bans and boosts, None where none is about them; the input is not changed.

    ``is_empty`` says that no label is left.
    """
    shifts = np.zeros(len(labels))
    banned = np.zeros(len(labels), bool)
    by: list[Override] = []
    for one in overrides:
        if one.kind not in (OverrideKind.BAN, OverrideKind.BOOST):
            continue
        places = [labels.index(name) for name in one.labels if name in labels]
        if not places:
            continue
        by.append(one)
        if one.kind is OverrideKind.BAN:
            banned[places] = True
        else:
            shifts[places] += one.amount
    if not by or scores.shape[-1] != len(labels):
        return None
    changed = np.asarray(scores, np.float32) + shifts.astype(np.float32)
    changed[..., banned] = _GONE
    return Adjusted(
        changed.astype(scores.dtype, copy=False), tuple(by), is_empty=bool(banned.all())
    )


def treated(
    label: int, confidence: float | None, labels: Sequence[str], overrides: Sequence[Override]
) -> Treated | None:
    """What becomes of an answer with this label; None where nothing is about it."""
    by: list[Override] = []
    for one in overrides:
        if labels[label] not in one.labels or (confidence or 0.0) >= one.below != 1.0:
            continue
        if one.kind is OverrideKind.WITHHOLD:
            return Treated(None, (*by, one))
        if one.kind is OverrideKind.REPLACE and one.answer in labels:
            by.append(one)
            label = labels.index(one.answer)
    return Treated(label, tuple(by)) if by else None


def notice_of(overrides: Iterable[Override]) -> str:
    """Overrides in words: which, of what, by whom, since when and why."""
    return "; ".join(
        told_of(f"override {one.id} ({_done(one)})", one.by, one.wall_s, one.why)
        for one in overrides
    )


def _done(one: Override) -> str:
    labels = ", ".join(one.labels)
    match one.kind:
        case OverrideKind.PIN:
            return f"answers {one.answer}"
        case OverrideKind.TIER:
            return f"has {one.tier} answer"
        case OverrideKind.BAN:
            return f"bans {labels}"
        case OverrideKind.BOOST:
            return f"adds {one.amount:+g} to {labels}"
        case OverrideKind.WITHHOLD:
            return f"keeps {labels} back{_below(one)}"
        case _:
            return f"makes {one.answer} of {labels}{_below(one)}"


def _below(one: Override) -> str:
    return "" if one.below == 1.0 else f" below {one.below:g}"


def _when(one: Override) -> tuple[str, ...]:
    return tuple(f"{name} == {value}" for name, value in sorted(one.context.items()))
