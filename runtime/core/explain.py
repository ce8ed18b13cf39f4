"""Why a tier did what it did with a request, in plain words, and what would have made it differ.

Rules of this file:
  * it says what is known and no more: what a log or a reply does not tell is left out;
  * it never raises on anything that a tier may have written, of whatever version it is;
  * names that came from elsewhere are shown bounded and without control characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from runtime.core import reasons
from runtime.core.explain_rules import chose_by_rule, ruled, without_rule
from runtime.core.ladder import step_of
from runtime.core.review import stands_from
from runtime.core.turning import Place, Turn, chance_to_ask, turns
from runtime.messages import Hop, Reason, Tier
from runtime.policy import Gear

_ESCALATE = "escalate"
# Of these the tier wanted to ask, and something was in the way.
_OBSTACLES = (Reason.RESIDENCY, Reason.NO_UPSTREAM, Reason.NO_TIME, Reason.UNLIKELY_IN_TIME)
_AVERAGED = "That is the average of its probabilities with those of the tiers before it."
_KINDS = {
    "probability": "probability",
    "margin": "a margin of",
    "entropy": "a score (1 less the entropy) of",
    "energy": "an energy of",
    "agreement": "an agreement of",
}


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one tier's decision; None is not known.

    ``label`` is the tier's own. ``gear`` is empty where none was followed. ``route`` names who was
    or would have been asked, with commas between. ``penalty`` is the price of one unit of cost,
    ``accept_at``, ``min_chance`` and ``margin_ms`` are the numbers that decide beside a gear.
    ``came_back`` is the tier whose answer was taken, ``end_reason`` why the answer is what it is.
    ``rule`` is the policy's rule that decided, ``rule_when`` its conditions in words.
    ``stands_from`` is the score from which on nobody would have been asked to review.
    ``forwarded`` is the output that was sent up in place of the inputs.
    ``averaged`` says that label and probability are of an average with the tiers below.
    """

    tier: str
    reason: str
    action: str
    site: str = ""
    model: str = ""
    model_version: str = ""
    label: int | None = None
    probability: float | None = None
    policy: str = ""
    gear: str | None = None
    score: float | None = None
    score_kind: str = ""
    gain: float | None = None
    cost: float | None = None
    penalty: float | None = None
    chance: float | None = None
    remaining_ms: float | None = None
    route: str = ""
    accept_at: float | None = None
    min_chance: float | None = None
    margin_ms: float | None = None
    service_us: int | None = None
    queue_us: int | None = None
    came_back: str = ""
    end_reason: str = ""
    guarantee: str = ""
    rule: str = ""
    rule_when: tuple[str, ...] = ()
    stands_from: float | None = None
    averaged: bool = False
    forwarded: str = ""


class Explanation(Facts, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of one decision with their meaning.

    ``value`` is the gain less the priced cost, ``turns`` are the scores nearest to this one at
    which the choice would have been another. ``words`` say why, ``otherwise`` what would have had
    to differ; each is a list of sentences.
    """

    label_name: str = ""
    value: float | None = None
    turns: tuple[Turn, ...] = ()
    words: tuple[str, ...]
    otherwise: tuple[str, ...] = ()


def facts_of_hop(hop: Hop) -> Facts:
    """What a line of an answer's provenance tells."""
    return Facts(
        tier=hop.tier.value,
        site=hop.site,
        model=hop.model_name,
        model_version=hop.model_version,
        label=hop.label,
        probability=hop.confidence,
        action=_ESCALATE if hop.escalated else "answer",
        reason=hop.reason.value,
        service_us=hop.service_us,
        queue_us=hop.queue_us,
        rule=hop.rule,
        averaged=hop.averaged,
        forwarded=hop.forwarded,
    )


def with_review(facts: Facts, gear: Gear | None) -> Facts:
    """The facts of an answer to be reviewed, with what the gear says about that."""
    if gear is None or gear.review is None:
        return facts
    return msgspec.structs.replace(
        facts,
        penalty=gear.penalty,
        score_kind=gear.review.score,
        stands_from=stands_from(gear, facts.label),
    )


def label_name(label: int | None, labels: Sequence[str]) -> str:
    """The name of a label; empty where it has none."""
    return labels[label] if label is not None and 0 <= label < len(labels) else ""


def explain(facts: Facts, *, labels: Sequence[str] = (), place: Place | None = None) -> Explanation:
    """One tier's decision in words.

    Args:
        facts: of the decision.
        labels: their names, by number.
        place: where in its gear's table it was made; without it nothing that would have been
            otherwise can be told of a score.
    """
    if place is not None:
        facts = _with_gear(facts, place)
    found = () if place is None else turns(place)
    name = reasons.plain(label_name(facts.label, labels))
    words = (
        _choice(facts, name),
        _AVERAGED if facts.averaged else "",
        _safer(facts),
        _weighed(facts),
        _rule(facts),
        _reason(facts),
        _what_climbed(facts),
        _what_came_back(facts),
    )
    otherwise = _beside_the_table(facts)
    if otherwise is None:
        otherwise = _otherwise(facts, place, found)
    return Explanation(
        **msgspec.structs.asdict(facts),
        label_name=name,
        value=_value(facts),
        turns=_nearest(found),
        words=tuple(filter(None, words)),
        otherwise=tuple(filter(None, otherwise)),
    )


def _with_gear(facts: Facts, place: Place) -> Facts:
    """The facts with what the gear adds: its price, its score, and whom it wanted to ask."""
    advice = place.advice()
    asks = advice.choice if advice.choice is not None and advice.choice.to else advice.fitted
    route = facts.route or (",".join(asks.to) if asks is not None else "")
    return msgspec.structs.replace(
        facts, penalty=place.gear.penalty, score_kind=place.table.score, route=route
    )


def _value(facts: Facts) -> float | None:
    if facts.gain is None or facts.cost is None or facts.penalty is None:
        return None
    return facts.gain - facts.penalty * facts.cost


def _number(value: float, form: str = ".3g") -> str:
    return format(value, form)


def _asked(facts: Facts) -> str:
    """Who was or would have been asked."""
    return reasons.named_all(facts.route) if facts.route else reasons.above(facts.tier)


def _choice(facts: Facts, name: str) -> str:
    """Who chose what, as in ``edge (agent-1, fashion 2): chose Shirt with probability 0.612.``."""
    model = " ".join(filter(None, (facts.model, facts.model_version)))
    who = ", ".join(reasons.plain(text) for text in (facts.site, model) if text)
    head = f"{reasons.plain(facts.tier)} ({who}): " if who else f"{reasons.plain(facts.tier)}: "
    if facts.probability is None:
        reason = reasons.reason_of(facts.reason)
        if reason is Reason.RULE and facts.action != _ESCALATE:
            return head + chose_by_rule(name, facts.label, facts.rule)
        is_routed = reason in (Reason.ROUTED, Reason.RULE)
        return f"{head}did not need its own model." if is_routed else f"{head}gave no answer."
    label = name or ("an answer" if facts.label is None else f"label {facts.label}")
    return f"{head}chose {label} with probability {_number(facts.probability, '.3f')}."


def _weighed(facts: Facts) -> str:
    """What its gear, or its threshold, made of that."""
    reason = reasons.reason_of(facts.reason)
    if facts.gain is None or facts.cost is None:
        return _threshold(facts, reason)
    if not facts.gain and not facts.cost:
        if facts.action == _ESCALATE and reason is Reason.UNSURE:
            return f"Its gear asks {_asked(facts)} at once, whatever the score."
        is_settled = reason is Reason.CONFIDENT
        return "Its gear expected nothing to be won by asking above." if is_settled else ""
    asked = facts.action == _ESCALATE
    lets_stand = reason is Reason.LOWER_STANDS
    subject = "An answer from below" if lets_stand else f"Asking {_asked(facts)}"
    if reason is Reason.REVIEW:
        subject = "A person"
    text = f"{subject} was expected to {_won(facts.gain)} in accuracy{_paid(facts.cost)}"
    value = _value(facts)
    if facts.penalty is not None and value is not None:
        text += f" at a price of {_number(facts.penalty)} per unit (value {_number(value, '+.3g')})"
    if facts.chance is not None and not lets_stand and reason is not Reason.REVIEW:
        text += f", chance to return in time {_number(facts.chance, '.2f')}"
    return f"{text}, so it asked {_asked(facts)}." if asked else f"{text}."


def _won(gain: float) -> str:
    return f"lose {_number(-gain)}" if gain < 0 else f"win {_number(gain)}"


def _paid(cost: float) -> str:
    return f" and to save {_number(-cost)} of cost" if cost < 0 else f" for {_number(cost)} of cost"


def _threshold(facts: Facts, reason: Reason | None) -> str:
    if reason not in (Reason.CONFIDENT, Reason.UNSURE, Reason.TOP_TIER) or facts.gear is None:
        return ""
    if facts.gear and not reasons.has_above(facts.tier):
        # A gear asks nothing of the highest tier but its answer.
        return ""
    how = "" if facts.accept_at is None else f" of {_number(facts.accept_at)}"
    if facts.gear:
        gear = reasons.plain(facts.gear)
        return f"The gear {gear} has no table for the tiers before it: its threshold{how} decided."
    return f"No gear was followed: its threshold{how} decided."


def _rule(facts: Facts) -> str:
    """What a rule of the policy said, where one decided."""
    if not facts.rule:
        return ""
    return ruled(
        facts.rule,
        reasons.reason_of(facts.reason),
        above=_asked(facts),
        asked=facts.action == _ESCALATE,
        has_own=facts.probability is not None,
    )


def _safer(facts: Facts) -> str:
    """That the gear is a safer one than budget and load ask for; as each tier tells it."""
    num_steps = step_of(facts.gear or "")
    if not num_steps:
        return ""
    return (
        f"It followed {reasons.plain(facts.gear or '')}, {num_steps} "
        f"step{'s' if num_steps > 1 else ''} safer than the gear: scores or audits said that "
        "traffic is not what was fitted on."
    )


def _reason(facts: Facts) -> str:
    """Why it did what it did, unless the weighing or its rule has said so."""
    reason = reasons.reason_of(facts.reason)
    if facts.rule and reason is Reason.RULE:
        return ""
    asked = facts.action == _ESCALATE
    if reason is None:
        return f"Its reason, {reasons.plain(facts.reason)!r}, is not known to this version."
    if reason is Reason.UNSURE and asked and facts.gain is not None:
        return ""
    above = _asked(facts)
    kept = "so it had to do with its own answer"
    if facts.probability is None:
        kept = "and nobody else was asked"
    left, chance = facts.remaining_ms, facts.chance
    return reasons.DECIDED[reason].format(
        above=above,
        Above=above[0].upper() + above[1:],
        so=f"so it asked {above}" if asked else kept,
        left="" if left is None else f" ({_number(left, '.1f')} ms)",
        odds="" if chance is None else f" (chance {_number(chance, '.2f')})",
    )


def _what_climbed(facts: Facts) -> str:
    if not facts.forwarded:
        return ""
    return f"It sent its model's output {reasons.plain(facts.forwarded)!r} up, not the inputs."


def _what_came_back(facts: Facts) -> str:
    if facts.action != _ESCALATE or not facts.end_reason:
        return ""
    if facts.came_back and facts.came_back != facts.tier:
        return f"The answer of {reasons.named(facts.came_back)} came back and was taken."
    reason = reasons.reason_of(facts.end_reason)
    return "" if reason is None else reasons.ENDED[reason]


def _nearest(found: Sequence[Turn]) -> tuple[Turn, ...]:
    """The nearest turn, and the nearest at which the tier would have answered itself."""
    own = next((turn for turn in found if turn.is_own_answer), None)
    nearest = found[0] if found else None
    return tuple(turn for turn in dict.fromkeys((nearest, own)) if turn is not None)


def _beside_the_table(facts: Facts) -> list[str] | None:
    """What would have had to differ where a rule or a review decided; None where a table did."""
    reason = reasons.reason_of(facts.reason)
    if reason is Reason.REVIEW:
        if facts.stands_from is None:
            return []
        kind = _KINDS.get(facts.score_kind, "a score of")
        at = _number(facts.stands_from, ".3f")
        return [f"Its answer would have stood without a review from {kind} {at} on."]
    # Where something was in the way of following a rule, that is what would have had to differ.
    if facts.rule and reason not in _OBSTACLES:
        return [without_rule(facts.rule_when)]
    return None


def _otherwise(facts: Facts, place: Place | None, found: Sequence[Turn]) -> list[str]:
    """What would have had to differ for something else to be done."""
    reason = reasons.reason_of(facts.reason)
    if reason in _OBSTACLES and facts.action != _ESCALATE:
        return [_without_obstacle(facts, reason, place)]
    if reason not in (Reason.CONFIDENT, Reason.UNSURE, Reason.LOWER_STANDS):
        return []
    if place is not None:
        return [_at(turn) for turn in _nearest(found)] or [_at_no_score(facts, place)]
    # Without a chance in time nobody is above, and nothing would have been asked.
    if facts.gear == "" and facts.accept_at is not None and facts.chance is not None:
        at = _number(facts.accept_at, ".3f")
        if reason is Reason.UNSURE:
            return [f"It would have answered itself from probability {at} on."]
        return [f"It would have asked {_asked(facts)} below probability {at}."]
    return []


def _at(turn: Turn) -> str:
    did = "answered itself"
    if turn.asks:
        did = f"asked {reasons.named_all(turn.asks)}"
    elif turn.stands:
        did = f"let the answer of {reasons.named(turn.stands)} stand"
    score = f"{_KINDS.get(turn.score, 'a score of')} {_number(turn.at, '.3f')}"
    where = f"from {score} on" if turn.side == "from" else f"below {score}"
    return f"It would have {did} {where}."


def _at_no_score(facts: Facts, place: Place) -> str:
    kind = place.table.score
    did = "answered itself" if facts.action == _ESCALATE else "done otherwise"
    return f"It would have {did} at no score: for this label the table says the same at any {kind}."


def _without_obstacle(facts: Facts, reason: Reason | None, place: Place | None) -> str:
    whom = _asked(facts)
    if reason is Reason.RESIDENCY:
        return f"It would have asked {whom} if residency allowed {_furthest(facts)}."
    if reason is Reason.NO_UPSTREAM:
        return f"It would have asked {whom} had the link been up."
    if reason is Reason.NO_TIME:
        if facts.margin_ms is None or facts.remaining_ms is None:
            return f"It would have asked {whom} with more time."
        more_ms = max(0.0, facts.margin_ms - facts.remaining_ms)
        # The rule is "more than the margin", and a number that is rounded down would not do.
        shown = "more" if not math.isfinite(more_ms) else f"{math.ceil(more_ms * 10 + 1) / 10:g}"
        return f"It would have tried to ask {whom} with {shown} ms more."
    needed = [facts.min_chance] if facts.min_chance is not None else []
    if place is not None and (pays := chance_to_ask(place)) is not None:
        needed.append(pays)
    if not needed:
        return f"It would have asked {whom} over a better link."
    at = _number(max(needed), ".2f")
    return f"It would have asked {whom} with a chance of a reply in time from {at} on."


def _furthest(facts: Facts) -> str:
    """The residency that would have let the request climb."""
    if facts.route:
        return reasons.residency_for(facts.route.rpartition(",")[2])
    return reasons.residency_for(Tier.REGIONAL if facts.tier == Tier.EDGE else Tier.CLOUD)
