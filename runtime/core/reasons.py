"""A sentence for everything that a decision or an answer can say about itself.

``DECIDED`` says why a tier did what it did, ``ENDED`` why the answer is what it is. Placeholders:
``{above}`` and ``{Above}`` are who was or would have been asked, ``{so}`` what the tier did then,
``{left}`` and ``{odds}`` the milliseconds left and the chance of a reply in time, where known.
"""

from __future__ import annotations

from runtime.messages import Guarantee, Outcome, Reason, Residency, Tier

DECIDED = {
    Reason.CONFIDENT: "It was sure enough, so its answer stands.",
    Reason.TOP_TIER: "Nobody above it is to be asked, so its answer stands.",
    Reason.UNSURE: "It was not sure enough, {so}.",
    Reason.PROBE: "By what is known of the link{odds} asking {above} was not worth it; "
    "it asked all the same, to find out whether the link is better now.",
    Reason.NO_CONFIDENCE: "Its numbers say nothing about how sure it is, {so}.",
    Reason.RESIDENCY: "The residency of the request keeps the payload from {above}, {so}.",
    Reason.NO_UPSTREAM: "It could not reach {above}, {so}.",
    Reason.NO_TIME: "Too little time was left{left} to ask {above}, {so}.",
    Reason.UNLIKELY_IN_TIME: "{Above} was not likely enough to reply in time{odds}, {so}.",
    Reason.UPSTREAM_TIMEOUT: "{Above} did not reply in time, {so}.",
    Reason.UPSTREAM_REFUSED: "{Above} refused the request, {so}.",
    Reason.UPSTREAM_FAILED: "{Above} failed, {so}.",
    Reason.UPSTREAM_UNSURE: "{Above} was not sure either, {so}.",
    Reason.LOWER_STANDS: "It found an answer from below the better one, and lets that stand.",
    Reason.ROUTED: "It was told to pass the request on, {so}.",
    Reason.PARTIAL_ENSEMBLE: "Not all members of its ensemble answered in time, {so}.",
    Reason.OVERLOADED: "It had too much to do, {so}.",
    Reason.BELOW_FLOOR: "Its answer is less sure than any answer given may be, so it is withheld.",
    Reason.LOCAL_FAILED: "Its own model failed, {so}.",
    Reason.DEADLINE: "The time was over before its own model had answered, {so}.",
    Reason.RULE: "A rule of the policy decided, before any model.",
    Reason.REVIEW: "Its answer goes out as the best so far; a person is to look at it.",
    Reason.FALLBACK: "An operator lets nothing climb, so its own model answered alone.",
    Reason.STOPPED: "An operator has stopped it, so its model was not asked.",
    Reason.OVERRIDE: "An operator keeps this label back.",
}

ENDED = {
    Reason.CONFIDENT: "The tier that answered was sure enough.",
    Reason.TOP_TIER: "The tier that answered has nobody above it to ask.",
    Reason.UNSURE: "The tier that answered was not sure.",
    Reason.PROBE: "The tier above was asked to find out whether the link is better now.",
    Reason.NO_CONFIDENCE: "The numbers of the model say nothing about how sure it is.",
    Reason.RESIDENCY: "The residency of the request kept the payload from going further.",
    Reason.NO_UPSTREAM: "The tier above could not be reached.",
    Reason.NO_TIME: "Too little time was left to ask the tier above.",
    Reason.UNLIKELY_IN_TIME: "The tier above was not likely enough to reply in time.",
    Reason.UPSTREAM_TIMEOUT: "No better answer came back in time.",
    Reason.UPSTREAM_REFUSED: "The tier above refused the request.",
    Reason.UPSTREAM_FAILED: "The tier above failed, or its reply could not be used.",
    Reason.UPSTREAM_UNSURE: "The tier above was not sure either.",
    Reason.LOWER_STANDS: "The tier above found the answer from below the better one.",
    Reason.ROUTED: "The request was passed on along its route.",
    Reason.PARTIAL_ENSEMBLE: "Not all members of the ensemble answered in time.",
    Reason.OVERLOADED: "There was too much to do.",
    Reason.BELOW_FLOOR: "The answer was less sure than any answer given may be.",
    Reason.LOCAL_FAILED: "The model of the tier failed, and nothing better came back.",
    Reason.DEADLINE: "The time was over before there was an answer.",
    Reason.RULE: "A rule of the policy decided.",
    Reason.REVIEW: "This is all there is so far, and it waits for a person to look at it.",
    Reason.FALLBACK: "An operator lets nothing climb; the local model answered alone.",
    Reason.STOPPED: "An operator has stopped answers.",
    Reason.OVERRIDE: "An operator keeps this label back, so no answer is given.",
}

OUTCOMES = {
    Outcome.ANSWERED: "answered",
    Outcome.DEGRADED: "answered as well as it could be (degraded)",
    Outcome.ABSTAINED: "no answer is given (abstained)",
    Outcome.FAILED: "no answer: it failed",
}

GUARANTEES = {
    Guarantee.CERTIFIED: "all went as the gear was fitted, so its certified promise holds: the "
    "accuracy and cost that the policy file states, with the confidence that it states.",
    Guarantee.EXPECTATION: "all went as the gear was fitted, which holds on average on data like "
    "that of the fit; there is no bound for it.",
    Guarantee.SUSPENDED: "a gear was followed, but the link, the residency, the load or a failure "
    "made it go otherwise, or traffic was not what the gear was fitted on, so its promise says "
    "nothing about this answer.",
    Guarantee.NONE: "nothing is promised: no gear was followed, or not the same one at all tiers, "
    "or the request was a batch.",
}

_TIERS = {
    Tier.EDGE: "the edge",
    Tier.REGIONAL: "the region",
    Tier.REGIONAL_2: "the second regional tier",
    Tier.REGIONAL_3: "the third regional tier",
    Tier.REGIONAL_4: "the fourth regional tier",
    Tier.CLOUD: "the cloud",
}


def printable(text: str) -> str:
    """Text of another tier as one line without anything that drives a terminal."""
    return "".join(one if one.isprintable() else "?" for one in text)


def plain(text: str) -> str:
    """The same, bounded: what another tier calls something."""
    return printable(text[:128])


def named(tier: str) -> str:
    """A tier in a sentence."""
    try:
        return _TIERS[Tier(tier)]
    except ValueError:
        return f"the tier {plain(tier)!r}"


def named_all(route: str) -> str:
    """The tiers of a route in a sentence."""
    return " and ".join(named(tier) for tier in route.split(","))


def above(tier: str) -> str:
    """Who is above a tier, in a sentence; what is above a gateway is a matter of settings."""
    return _TIERS[Tier.REGIONAL] if tier == Tier.EDGE else "the tier above"


def has_above(tier: str) -> bool:
    """Whether there can be a tier above this one."""
    return tier in _TIERS and tier != Tier.CLOUD


def residency_for(tier: str) -> str:
    """The strictest residency that lets a payload reach a tier."""
    try:
        return next(one.value for one in Residency if one.allows(Tier(tier)))
    except ValueError:
        return plain(tier)


def reason_of(text: str) -> Reason | None:
    """The reason of this name; None when this version does not know it."""
    try:
        return Reason(text)
    except ValueError:
        return None
