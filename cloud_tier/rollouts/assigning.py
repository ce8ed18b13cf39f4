"""What a rollout tells a device, as an assignment that is numbered, signed and sent.

The core counts its steps from 1 in every rollout; a device knows one number for all of them, which
only grows. Both are kept side by side, so that an answer finds its step again.
"""

from __future__ import annotations

import hashlib
import re

from runtime.assignments import Assignment, Do
from runtime.catalogue import CatalogueEntry, encode_entry
from runtime.core.rollout_events import AnyAction, Assign, RollBack, Unassign
from runtime.core.rollout_settings import SplitTerms
from runtime.core.rollout_states import Phase

Told = Assign | Unassign | RollBack
# What takes something back has to reach who was away for long.
_TAKES_BACK_FOR_S = 365 * 86_400.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_told(action: AnyAction) -> bool:
    """Whether it goes to a device."""
    return isinstance(action, Told)


def device_id(region: str, site: str) -> str:
    """A device's name in rollouts; a site's alone is unique in its region only."""
    return f"{region}/{site}"


def what_to_do(action: Told, split: SplitTerms | None = None) -> Do:
    """In the words of an assignment; where there is a ``split``, it takes the place of a shadow."""
    if isinstance(action, Assign):
        beside = Do.SHADOW if split is None else Do.SPLIT
        return beside if action.stage == Phase.SHADOW else Do.TRIAL
    return Do.WITHDRAW if isinstance(action, Unassign) else Do.ROLL_BACK


def assignment_of(
    action: Told,
    *,
    seq: int,
    rollout: str,
    entry: CatalogueEntry,
    now_s: float,
    clears_bad: bool = False,
    split: SplitTerms | None = None,
) -> Assignment:
    """The assignment under the device's own number ``seq``."""
    region, _, site = action.device.partition("/")
    do = what_to_do(action, split)
    if isinstance(action, Assign):
        terms = split if do is Do.SPLIT else None
        return Assignment(
            site,
            region,
            seq,
            do,
            rollout,
            max(0.0, action.not_after_s),
            path=entry.path,
            entry_sha256=hashlib.sha256(encode_entry(entry)).hexdigest(),
            clears_bad=clears_bad,
            share=terms.share if terms else 0.0,
            # Drawn anew on each device: what "lane-1" is everywhere is not all in one arm.
            experiment=f"{terms.experiment}/{action.device}" if terms else "",
            split_by=terms.split_by if terms else "",
        )
    to = action.to if isinstance(action, RollBack) and _SHA256.fullmatch(action.to) else ""
    return Assignment(site, region, seq, do, rollout, now_s + _TAKES_BACK_FOR_S, entry.path, to=to)
