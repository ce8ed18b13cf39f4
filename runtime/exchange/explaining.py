"""The explanation that an answer carries when its request asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from runtime.core.escalation import EscalationPolicy
from runtime.core.explain import Facts, explain, facts_of_hop, with_review
from runtime.core.reasons import plain
from runtime.core.story import Ending, Story, tell
from runtime.core.turning import Place
from runtime.exchange.course import Course
from runtime.exchange.directions import route_text
from runtime.messages import Answer, Tier


def explained(
    course: Course, answer: Answer, policy: EscalationPolicy, labels: tuple[str, ...]
) -> str:
    """The story of the answer as JSON: what this tier knows, and what the provenance tells."""
    tiers = [explain(_facts(course, answer, policy), labels=labels, place=_place(course, answer))]
    tiers.extend(explain(facts_of_hop(hop), labels=labels) for hop in answer.hops[1:])
    ending = Ending(
        request_id=answer.request_id,
        outcome=answer.outcome.value,
        reason=answer.reason.value,
        answered_by=answer.tier.value if answer.tier else "",
        label=answer.label,
        confidence=answer.confidence,
        guarantee=answer.guarantee.value,
        latency_ms=answer.latency_ms,
    )
    notes = [f"What an operator has said: {answer.notice}."] if answer.notice else []
    notes.extend(_fell_back(course))
    return msgspec.json.encode(tell(ending, tiers, labels=labels, notes=notes)).decode()


def _fell_back(course: Course) -> Iterator[str]:
    """What was done because no answer stood."""
    if course.fell_back is None:
        return
    resort, ruling = course.fell_back.resort, course.fell_back.ruling
    what = _RESORTS[resort] if ruling is None else f"fell back on the rule {plain(ruling.rule)}"
    yield f"No answer stood, so the policy {what}."


_RESORTS = {
    "review": "left it to a person",
    "abstain": "had the tier withhold what it had",
    "": "had no resort left, and what there was is withheld",
}
_STORY = msgspec.json.Decoder(Story)


def parse_story(text: str) -> Story:
    """A story that an answer carried.

    Raises:
        msgspec.ValidationError: it is none.
        msgspec.DecodeError: it is no JSON.
    """
    return _STORY.decode(text)


def _facts(course: Course, answer: Answer, policy: EscalationPolicy) -> Facts:
    """The first line of the provenance, with all that only this tier knows."""
    advice, (digest, _, gear) = course.advice, course.engaged.label.partition("/")
    wanted = (advice.choice or advice.fitted) if advice else None
    ruling = course.ruling
    weighed = course.review or advice
    engaged = course.engaged.gear
    sent_to = "" if ruling is None or ruling.tier is None else ruling.tier.value
    came_back = answer.tier.value if answer.tier and course.settlement.takes_upstream else ""
    facts = msgspec.structs.replace(
        facts_of_hop(answer.hops[0]),
        policy=digest,
        gear=gear,
        score=course.score,
        gain=weighed.gain if weighed else None,
        cost=weighed.cost if weighed else None,
        penalty=engaged.penalty if weighed and engaged else None,
        chance=course.chance,
        remaining_ms=course.remaining_ms,
        route=route_text(course.decision.route) or (",".join(wanted.to) if wanted else sent_to),
        rule_when=() if ruling is None else ruling.when,
        accept_at=policy.accept_at,
        min_chance=policy.min_chance,
        margin_ms=policy.margin_ms,
        came_back=came_back,
        end_reason=answer.reason.value,
        guarantee=answer.guarantee.value,
    )
    return facts if course.review is None else with_review(facts, engaged)


def _place(course: Course, answer: Answer) -> Place | None:
    """Where in its gear's table the decision was made; None when it was not made there."""
    gear, result = course.engaged.gear, course.result
    if gear is None or course.advice is None or course.score is None or result is None:
        return None
    here, earlier = answer.hops[0].tier, course.request.earlier
    table = gear.table_at((*[tier.value for tier, _ in earlier], here.value))
    if table is None:
        return None
    residency = course.request.residency
    return Place(
        gear,
        table,
        label=result.confidence.label,
        earlier=tuple(label for _, label in earlier),
        score=course.score,
        chance=0.0 if course.chance is None else course.chance,
        out_of_reach=frozenset(tier.value for tier in Tier if not residency.allows(tier)),
    )
