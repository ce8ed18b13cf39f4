"""What live traffic says about the gears: which load, how many steps safer, and what is promised.

Rules of this file:
  * it belongs to the tier where journeys begin; the tiers above follow the gear that they are told;
  * whatever is noted, the answer is one of the certified configurations of the gear;
  * only steps towards safety: nothing here makes a gear cheaper than it was certified;
  * steering looks at the answers that were given; whether to fit again, at those that the gear
    itself would have given, or else safer steps would hide that it is outdated;
  * facts that the policy does not hold switch off what needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from runtime.core.drift import ScoreDrift
from runtime.core.ladder import label_under, ladder
from runtime.core.load import AS_FITTED, LoadEstimator
from runtime.core.recalibration import RecalibrationDetector
from runtime.core.seen import Seen
from runtime.core.steering import Steering
from runtime.messages import Residency, Tier
from runtime.policy import Gear, Policy, Score

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds for the next request.

    ``tau``, 0 to 1, says how far to go towards safety, ``depth`` how many steps more. The last
    step, where the top tier answers everything, is no help where ``can_ask_top`` is False.
    """

    load: float = AS_FITTED
    tau: float = 0.0
    depth: int = 0
    is_suspended: bool = False
    can_ask_top: bool = True

    def step(self, num_steps: int) -> int:
        """Which of a gear's safer steps to take; 0 is the gear itself.

        Gear and steps share the range of ``tau`` evenly, so that the last one is kept for a while.
        """
        wanted = min(num_steps, int(self.tau * (num_steps + 1) + _ROUNDING)) + self.depth
        return max(0, min(wanted, num_steps if self.can_ask_top else num_steps - 1))


AS_IT_WAS_FITTED = Standing()


class LiveControl:
    """Everything that is noted while a policy is in force; ``audit_rate`` is that of the audits."""

    def __init__(self, policy: Policy, *, audit_rate: float) -> None:
        self.score_kind: Score | None = policy.scores.kind if policy.scores else None
        self.top = Tier(policy.tiers[-1])
        self.drift = ScoreDrift(policy.scores) if policy.scores else None
        self.load = LoadEstimator(
            policy.trace.median_ms if policy.trace else {}, [gear.load for gear in policy.gears]
        )
        self.steering = Steering(audit_rate)
        self.recalibration = RecalibrationDetector(audit_rate)
        self._tiers = policy.tiers
        self._targets: dict[str, float] = {}
        # Of every safer step the gear that it is one of.
        self._fitted: dict[str, Gear] = {}
        for gear in policy.gears:
            target = allowed_disagreement(gear, policy.targets.max_loss)
            if target is not None:
                steps = ladder(gear, policy.targets)
                self._targets |= {step.name: target for step in steps}
                self._fitted |= {step.name: gear for step in steps[1:]}
        self._standing = AS_IT_WAS_FITTED

    def standing(self, now_s: float, residency: Residency = Residency.CLOUD) -> Standing:
        """What holds for a request that comes in now."""
        load = self.load.load_at(now_s)
        if load != self._standing.load:
            self._standing = replace(self._standing, load=load)
        if residency.allows(self.top):
            return self._standing
        return replace(self._standing, can_ask_top=False)

    def note_score(self, score: float) -> bool:
        """The lowest tier's score of any request; whether a shift was found, or has ended."""
        has_changed = self.drift is not None and self.drift.note(score)
        if has_changed:
            self._refresh()
        return has_changed

    def note_answer(
        self,
        gear: str,
        *,
        disagrees: bool | None,
        is_auditable: bool,
        seen: Mapping[str, Seen] | None = None,
    ) -> None:
        """An answer under a gear, or a step of it.

        Args:
            gear: its name.
            disagrees: with the top tier's answer; None where that is not known.
            is_auditable: whether an audit could have been drawn, and so speaks for this answer.
            seen: what the tiers answered, to know what the gear would have answered.
        """
        target = self._targets.get(gear)
        if target is None or (disagrees is None and not is_auditable):
            return
        self.steering.note_answer(target, disagrees=bool(disagrees))
        is_known = disagrees is not None
        fitted = is_known and self._would_disagree(gear, seen, disagrees=bool(disagrees))
        self.recalibration.note_answer(target, disagrees=fitted)
        self._refresh()

    def note_audit(
        self,
        gear: str,
        chance: float,
        *,
        agrees: bool | None,
        seen: Mapping[str, Seen] | None = None,
    ) -> bool:
        """An audit that ended; whether it shows for the first time that the promise is broken."""
        target = self._targets.get(gear)
        if target is None or not chance > 0:
            return False
        self.steering.note_audit(target, chance, agrees=agrees)
        if agrees is not None:
            agrees = not self._would_disagree(gear, seen, disagrees=not agrees)
        is_alarm = self.recalibration.note_audit(target, chance, agrees=agrees)
        self._refresh()
        return is_alarm

    def _would_disagree(
        self, name: str, seen: Mapping[str, Seen] | None, *, disagrees: bool
    ) -> bool:
        """Whether the gear's own answer is not the top tier's; False where that is not known."""
        gear = self._fitted.get(name)
        if gear is None:
            return disagrees
        if seen is None or self.top.value not in seen:
            return False
        label = label_under(gear, self._tiers, seen)
        return label is not None and label != seen[self.top.value].label

    def _refresh(self) -> None:
        depth = self.drift.depth if self.drift else 0
        is_suspended = depth > 0 or self.recalibration.is_alarmed
        now, tau = self._standing, self.steering.tau
        if now.tau != tau or now.depth != depth or now.is_suspended != is_suspended:
            self._standing = Standing(now.load, tau, depth, is_suspended)


def allowed_disagreement(gear: Gear, max_loss: float) -> float | None:
    """How often final answers may differ from the top tier's; None where the fit did not say."""
    found = gear.promise.disagreement
    if found is None or not gear.tables:
        return None
    return found.mean + max(0.0, max_loss - gear.promise.loss.mean)
