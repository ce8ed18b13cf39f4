"""What a device says about its assignment, upwards through the outbox, and to people who ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from runtime.adapters.update_metrics import UpdateMetrics
from runtime.assignments import Assignment, Counted, DeviceReport, Do
from runtime.core.obeying import Standing, standing
from runtime.core.releases import Fault, Slot
from runtime.core.rollout_states import Execution, HardFault
from runtime.exchange.course import Identity
from runtime.exchange.items import json_item
from runtime.logs import get_logger
from runtime.manifest import ModelManifest
from runtime.messages import ItemKind, Tier
from runtime.ports import Clock, OutboxItem
from runtime.updating.counting import Watch, added

MAX_REASON = 256
HARD_FAULTS = {
    Fault.ATTEMPTS: HardFault.CRASH_LOOP,
    Fault.CRASH_LOOP: HardFault.CRASH_LOOP,
    Fault.LOAD_FAILED: HardFault.LOAD_FAILED,
    Fault.OUT_OF_MEMORY: HardFault.OUT_OF_MEMORY,
    Fault.GOLDEN_MISMATCH: HardFault.GOLDEN_MISMATCH,
    Fault.INVALID_OUTPUT: HardFault.NOT_A_NUMBER,
    Fault.FILES_LOST: HardFault.DIGEST_MISMATCH,
}


class Tale(msgspec.Struct, frozen=True):
    """How the latest assignment stands; ``fault`` is a ``HardFault`` or empty."""

    seq: int = 0
    state: str = ""
    reason: str = ""
    fault: str = ""


def published_name(manifest: ModelManifest) -> str:
    """What rollouts know a model as; above the edge with its tier: ``fashion-regional``."""
    is_edge = manifest.tier is Tier.EDGE
    return manifest.name if is_edge else f"{manifest.name}-{manifest.tier.value}"


class Teller:
    """Tells of every change at once, and of everything once in a while.

    Args:
        identity: who we are.
        epoch: of this life of the process; reports are numbered in it.
        hardware: tags of this device.
        post: takes an item for the tiers above.
        serving: the digest and the manifest of what answers now.
        watches: those of all models that are loaded now.
        clock: for how long counts took.
        metrics: of updates.
    """

    def __init__(
        self,
        identity: Identity,
        epoch: int,
        hardware: str,
        *,
        post: Callable[[OutboxItem], object],
        serving: Callable[[], tuple[str, ModelManifest]],
        watches: Callable[[], Sequence[Watch]],
        clock: Clock,
        metrics: UpdateMetrics,
    ) -> None:
        self._identity, self._epoch, self._hardware = identity, epoch, hardware
        self._post, self._serving, self._watches = post, serving, watches
        self._clock, self._metrics = clock, metrics
        self._log = get_logger()
        self._number = 0
        self._reported_s = clock.monotonic_s()
        # By the watch itself: a release that is loaded again begins anew.
        self._last: dict[int, tuple[Watch, Counted]] = {}
        self.tale = Tale()
        metrics.set_state("", Execution)

    def tell(
        self, state: Execution, *, seq: int, reason: str = "", fault: HardFault | None = None
    ) -> None:
        """Says how the assignment stands; the same as before is not said again."""
        tale = Tale(seq, state, reason[:MAX_REASON], fault or "")
        if tale == self.tale:
            return
        self.tale = tale
        self._metrics.set_state(state, Execution)
        self._log.info("update.moved", seq=seq, state=state, reason=tale.reason, fault=tale.fault)
        self.report()

    def given_up(self, seq: int, fault: Fault, detail: str) -> None:
        """Says that the release was given up, and why."""
        self._metrics.count_fault(fault)
        self._log.error("release.given_up", seq=seq, fault=fault, detail=detail[:MAX_REASON])
        reason = f"{fault}: {detail}" if detail else str(fault)
        self.tell(Execution.ROLLED_BACK, seq=seq, reason=reason, fault=HARD_FAULTS.get(fault))

    def tell_standing(self, slot: Slot, assignment: Assignment) -> None:
        """Says how an assignment of an earlier life stands, by the record."""
        seq = assignment.seq
        match standing(slot):
            case Standing.TRIAL:
                self.tell(Execution.TRIAL, seq=seq)
            case Standing.SPLIT:
                self.tell(Execution.SPLIT, seq=seq)
            case Standing.CURRENT:
                self.tell(Execution.CONFIRMED, seq=seq)
            case Standing.GIVEN_UP:
                fault = next(one.fault for one in slot.bad if one.manifest_sha256 == slot.assigned)
                hard = HARD_FAULTS.get(fault)
                self.tell(Execution.ROLLED_BACK, seq=seq, reason=fault, fault=hard)
            case _:
                is_back = assignment.do is Do.ROLL_BACK
                state = Execution.ROLLED_BACK if is_back else Execution.CANCELLED
                self.tell(state, seq=seq)

    def report(self) -> None:
        """Puts a report into the outbox, with what was counted since the one before."""
        now_s = self._clock.monotonic_s()
        over_s, self._reported_s = now_s - self._reported_s, now_s
        release, manifest = self._serving()
        counted, last = list[Counted](), dict[int, tuple[Watch, Counted]]()
        for watch in self._watches():
            before = self._last.get(id(watch), (watch, None))[1]
            since = watch.counted(before, over_s)
            totals = added(before, since)
            last[id(watch)] = watch, totals
            # Of what does not answer any more, nothing is said without news.
            if watch.release == release or totals != before:
                counted.append(since)
        self._last = last
        self._number += 1
        report = DeviceReport(
            device=self._identity.site,
            region=self._identity.region,
            epoch=self._epoch,
            number=self._number,
            serving=release,
            model=published_name(manifest),
            version=manifest.version,
            hardware=self._hardware[:MAX_REASON],
            counted=tuple(counted),
            **msgspec.structs.asdict(self.tale),
        )
        item = json_item(ItemKind.UPDATE, report, self._clock)
        if manifest.tier is not Tier.EDGE:
            # Its way up is in another region than it is: it says for whom it speaks.
            item = replace(item, origin=f"{self._identity.region}/{self._identity.site}")
        self._post(item)

    def shown(self) -> dict[str, Any]:
        """The same for people at the device."""
        release, manifest = self._serving()
        return {
            "serving": {"release": release, "model": manifest.name, "version": manifest.version},
            "assignment": msgspec.to_builtins(self.tale),
            "counted": [msgspec.to_builtins(one.totals()) for one in self._watches()],
        }


def shown(slot: Slot) -> dict[str, Any]:
    """What a slot of the store has, for people at the device."""
    places = {
        "current": slot.current,
        "previous": slot.previous,
        "factory": slot.factory,
        "wanted": slot.wanted,
        "trial": slot.trial.release if slot.trial else None,
        "split": slot.split.release if slot.split else None,
    }
    split = slot.split
    terms = (
        {"share": split.share, "experiment": split.experiment, "split_by": split.split_by}
        if split
        else None
    )
    return {
        "split": terms,
        "slot": {
            place: {"release": one.name, "version": one.version}
            for place, one in places.items()
            if one is not None
        },
        "bad": [{"release": one.manifest_sha256, "fault": one.fault} for one in slot.bad],
    }
