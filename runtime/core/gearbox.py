"""Which gear a request follows at a tier, what its table says there, and what its answer promises.

Rules of this file:
  * the lowest tier of a policy chooses the gear, by the budget that the caller stated; digest and
    name travel with the request, and all tiers follow that gear;
  * a tier that does not have it uses its own policy's gear for the budget that is left, and
    promises nothing;
  * a request without a gear is decided by thresholds, wherever it comes to;
  * what live traffic says chooses among gears and their safer steps, at the lowest tier only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.core.confidence import Confidence
from runtime.core.gears import Advice, weigh
from runtime.core.ladder import ladder
from runtime.core.live import AS_IT_WAS_FITTED, Standing
from runtime.core.rules import Rules
from runtime.messages import USUAL_TIERS, Guarantee, Outcome, Reason, Residency, Tier
from runtime.policy import Choice, DecisionTable, Gear, Policy, Score
from runtime.policy_rules import Resort

# Enough of a digest to tell policies apart, short enough for every request.
DIGEST_CHARACTERS = 12
Earlier = Sequence[tuple[Tier, int | None]]
_OUT_OF_REACH = {
    residency: frozenset(tier.value for tier in Tier if not residency.allows(tier))
    for residency in Residency
}


@dataclass(frozen=True, slots=True)
class Engaged:
    """The gear that one request follows at one tier; without one, thresholds decide.

    ``travels`` is what the tiers above are told. ``guarantee`` holds for an answer that comes about
    as fitted; it is ``none`` for a batch and under another policy than the one below, ``suspended``
    while traffic is not what was fitted on.
    ``label`` is the digest and name of the gear that this tier looks things up in; it differs from
    ``travels`` where this tier has another policy. ``expects_late`` says that the fit counted
    answers which come too late. ``score`` is what this tier's tables of the gear look up.
    """

    gear: Gear | None = None
    travels: str = ""
    guarantee: Guarantee = Guarantee.NONE
    label: str = ""
    expects_late: bool = False
    score: Score = "probability"


@dataclass(frozen=True, slots=True)
class Climb:
    """How asking the tiers above ended; ``guarantee`` is theirs, None when nothing was said."""

    outcome: Outcome
    reason: Reason
    guarantee: Guarantee | None
    is_taken: bool


class Gearbox:
    """A tier's policy, ready to be looked things up in. Without a policy it has no gears.

    ``above`` are the tiers that have a say above this one, upwards; ``rules`` decide before any
    gear, where a journey begins; ``fallback`` is gone through there when no answer stands.
    ``has_reviews`` says that people may be asked about answers here.
    """

    def __init__(self, tier: Tier, policy: Policy | None = None, digest: str = "") -> None:
        self.tier, self.policy = tier, policy
        self.digest = digest[:DIGEST_CHARACTERS]
        self._gears: dict[str, Gear] = {}
        self._tables: dict[tuple[str, tuple[str, ...]], DecisionTable] = {}
        self._scores: dict[str, Score] = {}
        self._ladders: dict[str, tuple[Gear, ...]] = {}
        self._budgets: list[float] = []
        # For every budget the gear for each load.
        self._by_budget: list[dict[float, Gear]] = []
        # Without a policy every journey begins where it comes in, and goes up to the top.
        self._is_lowest = policy is None
        self.above = tuple(other for other in USUAL_TIERS if other.height > tier.height)
        self.is_top = self._expects_late = False
        # A gear without tables asks the top tier at once.
        self._to_the_top: Choice | None = None
        self.rules, self.has_reviews = Rules(), False
        self.fallback: tuple[Resort, ...] = ()
        self.fallback_rules = Rules()
        if policy is None:
            return
        self._is_lowest = tier.value == policy.tiers[0]
        if self._is_lowest:
            self.rules = Rules(policy.rules, policy.labels)
            self.fallback = policy.fallback
            self.fallback_rules = Rules(policy.fallback_rules, policy.labels)
        self.is_top = tier.value == policy.tiers[-1]
        above = (other for other in Tier if other.height > tier.height)
        self.above = tuple(other for other in above if other.value in policy.tiers)
        reviews_top = self.is_top and any(gear.review for gear in policy.gears)
        self.has_reviews = reviews_top or "review" in self.fallback
        self._ladders = {gear.name: ladder(gear, policy.targets) for gear in policy.gears}
        self._gears = {gear.name: gear for steps in self._ladders.values() for gear in steps}
        for gear in self._gears.values():
            for table in gear.tables:
                self._tables[gear.name, table.tiers] = table
                if table.tiers[-1] == tier.value:
                    self._scores.setdefault(gear.name, table.score)
        self._budgets = sorted({gear.budget_ms for gear in policy.gears})
        loads = {AS_IT_WAS_FITTED.load, *(gear.load for gear in policy.gears)}
        self._by_budget = [
            {load: found for load in loads if (found := policy.gear_for(ms, load))}
            for ms in self._budgets
        ]
        self._expects_late = policy.targets.max_late is not None
        self._to_the_top = Choice(gain=(), cost=(), to=policy.tiers[-1:])

    def engage(
        self,
        travels: str,
        *,
        remaining_ms: float,
        num_examples: int,
        hop: int = 0,
        standing: Standing = AS_IT_WAS_FITTED,
    ) -> Engaged:
        """The gear of a request.

        Args:
            travels: what the request says of its gear; empty where it came from a caller.
            remaining_ms: its budget as it was stated to this tier.
            num_examples: fits are about single examples; a batch follows the gear unpromised.
            hop: how many tiers passed it on; a journey begins where none did.
            standing: what live traffic says, where this request's journey begins.
        """
        if not travels:
            gear = self._gear_for(remaining_ms, standing) if self.begins(hop) else None
            if gear is None:
                return Engaged()
            travels = f"{self.digest}/{gear.name}"
        else:
            digest, _, name = travels.partition("/")
            gear = self._gears.get(name) if digest == self.digest else None
            if gear is None:
                ours = self._gear_for(remaining_ms, AS_IT_WAS_FITTED)
                return self._replaced(ours, travels)
        promised = gear.guarantee if num_examples == 1 else Guarantee.NONE
        if standing.is_suspended and promised is not Guarantee.NONE:
            promised = Guarantee.SUSPENDED
        return Engaged(
            gear,
            travels,
            promised,
            label=travels,
            expects_late=self._expects_late or gear.promise.late > 0,
            score=self._scores.get(gear.name, "probability"),
        )

    def _replaced(self, ours: Gear | None, travels: str) -> Engaged:
        """Our own gear where the one that travels is not known here."""
        if ours is None:
            return Engaged(None, travels)
        score = self._scores.get(ours.name, "probability")
        return Engaged(ours, travels, label=f"{self.digest}/{ours.name}", score=score)

    def begins(self, hop: int) -> bool:
        """Whether the journey of a request that ``hop`` tiers have passed on begins here."""
        return self._is_lowest and hop == 0

    def _gear_for(self, budget_ms: float, standing: Standing) -> Gear | None:
        """As ``Policy.gear_for`` has it, without going through all; or a safer step of that."""
        position = bisect_right(self._budgets, budget_ms)
        if not position:
            return None
        by_load = self._by_budget[position - 1]
        gear = by_load.get(standing.load) or by_load[AS_IT_WAS_FITTED.load]
        if not (standing.depth or standing.tau):
            return gear
        steps = self._ladders[gear.name]
        return steps[standing.step(len(steps) - 1)]

    def advise(
        self,
        engaged: Engaged,
        confidence: Confidence,
        earlier: Earlier,
        *,
        residency: Residency,
        chance: float,
    ) -> tuple[Advice, float] | None:
        """What the gear says about a valid answer, and the score that it was looked up with.

        None when it says nothing: no gear, or none of its tables is for these tiers.
        """
        gear = engaged.gear
        if gear is None:
            return None
        out_of_reach = _OUT_OF_REACH[residency]
        fitted = self._to_the_top
        if not gear.tables and self._is_lowest and fitted is not None:
            choice = fitted if out_of_reach.isdisjoint(fitted.to) else None
            advice = Advice(choice, fitted, 0.0, 0.0, 0.0, choice is fitted, 0, 0)
            return advice, confidence.probability
        tiers = (*[tier.value for tier, _ in earlier], self.tier.value)
        table = self._tables.get((gear.name, tiers))
        if table is None:
            return None
        score = confidence.score(table.score)
        advice = weigh(
            gear,
            table,
            label=confidence.label,
            score=score,
            earlier=[label for _, label in earlier],
            chance=chance,
            out_of_reach=out_of_reach,
        )
        return advice, score


def guarantee_of(engaged: Engaged, *, is_as_fitted: bool, climb: Climb | None) -> Guarantee:
    """What an answer promises: the gear's guarantee, if it came about as the gear was fitted.

    Args:
        engaged: the gear at this tier.
        is_as_fitted: whether what this tier did is what the fit would have done.
        climb: how asking above ended, None when nobody was asked.
    """
    promised = engaged.guarantee
    if promised is Guarantee.NONE or engaged.gear is None:
        return Guarantee.NONE
    if not is_as_fitted:
        return Guarantee.SUSPENDED
    if climb is None:
        return promised
    if climb.outcome is Outcome.FAILED or climb.guarantee is None:
        is_late = climb.outcome is Outcome.FAILED and climb.reason is Reason.UPSTREAM_TIMEOUT
        return promised if is_late and engaged.expects_late else Guarantee.SUSPENDED
    if climb.guarantee in (Guarantee.NONE, Guarantee.SUSPENDED):
        return climb.guarantee
    is_used = climb.is_taken or climb.reason is Reason.LOWER_STANDS
    return promised if is_used else Guarantee.SUSPENDED
