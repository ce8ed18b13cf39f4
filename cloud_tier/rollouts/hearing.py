"""What devices said, in the words of one rollout: its steps, and its version as its target.

A digest of the rollout's own version is given to the core as the path of the catalogue entry,
whichever variant it is. Other digests stay what they are, so that a device goes back to exactly
what it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloud_tier.rollouts.committing import Kept
from cloud_tier.rollouts.register import DeviceRow, Heard
from runtime.catalogue import CatalogueEntry
from runtime.core.cohorts import Device
from runtime.core.rollout_events import AnyEvent, Beat, Heartbeats, Join, Report
from runtime.core.rollout_states import IN_FLIGHT, RUNNING, Execution, HardFault
from runtime.messages import Tier

# Number, rollout and the rollout's own step, rising.
Steps = Sequence[tuple[int, str, int]]
# A device that was silent for longer is left out; when it is back it joins the last wave.
SILENT_S = 86_400.0
_STATES = frozenset(one.value for one in Execution)
_FAULTS = frozenset(one.value for one in HardFault)


def known_as(entry: CatalogueEntry) -> tuple[str, ...]:
    """What processes that run this model call it in their reports."""
    bare = entry.model.removesuffix(f"-{entry.tier.value}")
    # It may be published under its name, or under that with its tier.
    with_tier = f"{bare}-{entry.tier.value}"
    return (bare, with_tier) if entry.tier is Tier.EDGE else (with_tier,)


def candidate(row: DeviceRow, entry: CatalogueEntry, now_s: float) -> Device | None:
    """A device that has the model, as the plan takes it; None where it is none of its business."""
    if row.model not in known_as(entry) or entry.region not in (None, row.region):
        return None
    silent_s = now_s - row.heard_s
    left_out = f"silent for {silent_s / 3600:.0f} h" if silent_s > SILENT_S else ""
    return Device(row.id, row.region, row.hardware, left_out)


def beat_of(kept: Kept, row: DeviceRow, steps: Steps) -> Beat:
    """A device's sign of life; its number is the latest step of this rollout that it has heard."""
    heard = [step for seq, rollout, step in steps if rollout == kept.rollout.id and seq <= row.seq]
    return Beat(row.id, named(kept, row.serving), max(heard, default=0))


def named(kept: Kept, digest: str) -> str:
    """A digest as this rollout calls it."""
    return kept.rollout.target if digest in kept.digests else digest


def events_of(
    kept: Kept,
    heard: Iterable[Heard],
    rows: Mapping[str, DeviceRow],
    steps: Mapping[str, Steps],
    now_s: float,
) -> list[AnyEvent]:
    """What all of this is to one rollout: who joins, reports in their order, signs of life."""
    rollout = kept.rollout
    joins: dict[str, AnyEvent] = {}
    reports: list[AnyEvent] = []
    beats: dict[str, Beat] = {}
    for one in heard:
        row = rows.get(one.device)
        if row is None:
            continue
        if one.device not in rollout.devices:
            split = rollout.settings.split
            is_open = rollout.phase in RUNNING and not kept.is_closed
            if split is not None:
                # Who serves something else has nothing to compare with.
                is_open = is_open and row.serving in split.control
            new = candidate(row, kept.entry, now_s) if is_open else None
            if new is None or new.left_out:
                continue
            joins[one.device] = Join(new)
        else:
            reports += _reports(kept, one, steps[one.device])
        if now_s - one.said_s <= rollout.settings.offline_after_s:
            beats[one.device] = beat_of(kept, row, steps[one.device])
    events = [*joins.values(), *reports]
    return [*events, Heartbeats(tuple(beats.values()))] if beats else events


def _reports(kept: Kept, heard: Heard, steps: Steps) -> list[AnyEvent]:
    said, rollout = heard.report, kept.rollout
    own = {seq: step for seq, of, step in steps if of == rollout.id}
    if own and said.seq > steps[-1][0] and rollout.devices[heard.device].state in IN_FLIGHT:
        why = f"another controller has told it something, as number {said.seq}"
        step = rollout.devices[heard.device].seq
        return [Report(heard.device, step, Execution.REJECTED, reason=why)]
    if said.seq not in own:
        return []
    fault = HardFault(said.fault) if said.fault in _FAULTS else None
    # Beside what serves, as one in shadow is.
    state = Execution.SHADOW if said.state == Execution.SPLIT else said.state
    if said.state not in _STATES and fault is None:
        return []
    return [
        Report(
            heard.device,
            own[said.seq],
            # What is not known here is nothing to follow; its fault is.
            Execution(state) if state in _STATES else Execution.PENDING,
            named(kept, said.serving),
            said.reason,
            fault,
        )
    ]
