"""Last resorts in a hierarchy: what is given where no answer stands, and what is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest

from fakes.gears import CHAIN, gearbox, policy
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.reviews import ListQueue
from fakes.rules import DARK, NIGHT, rule
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend
from runtime.adapters.memory_broker import MemoryBroker
from runtime.core.story import paragraphs
from runtime.exchange.explaining import parse_story
from runtime.messages import Answer, Guarantee, Outcome, Reason, Residency, Tier
from runtime.policy import Policy
from runtime.policy_rules import Resort

DEFAULT = rule(DARK, name="when-dark", answer="owl")
BROKEN = NumbersBackend(is_broken=True)
BRIGHT: dict[str, Any] = {"inputs": {"x": np.ones((1, 2), np.float32)}}


def falling(*order: Resort) -> Policy:
    rules = (DEFAULT,) if "rules" in order else ()
    return policy(*CHAIN.gears, fallback=order, fallback_rules=rules)


async def alone(
    followed: Policy, *backends: NumbersBackend, **options: Any
) -> tuple[Answer, FakeTier]:
    """The answer of a device that reaches nobody."""
    asked: dict[str, Any] = {"inputs": {"x": np.zeros((1, 2), np.float32)}, "explain": True}
    asked |= options.pop("asked", {})
    async with edge(
        MemoryBroker(), *backends, gearbox=gearbox(Tier.EDGE, followed), **options
    ) as tier:
        answer, _ = await ask(tier, **asked)
    return answer, tier


def ended(answer: Answer) -> tuple[Outcome, Reason, int | None]:
    return answer.outcome, answer.reason, answer.label


def counted(tier: FakeTier, resort: str) -> bool:
    line = f'tierwise_edge_fallbacks_total{{resort="{resort}"}} 1.0'
    return line in tier.metrics.render()[0].decode().splitlines()


def told(answer: Answer) -> str:
    return "\n".join(paragraphs(parse_story(answer.explanation)))


@pytest.mark.parametrize(
    ("order", "backend", "end", "resort"),
    [
        (["lower"], NumbersBackend(UNSURE), (Outcome.DEGRADED, Reason.NO_UPSTREAM), "lower"),
        (["lower"], BROKEN, (Outcome.FAILED, Reason.LOCAL_FAILED), "none"),
        (["lower", "rules"], BROKEN, (Outcome.DEGRADED, Reason.RULE), "rules"),
        (["rules", "lower"], NumbersBackend(UNSURE), (Outcome.DEGRADED, Reason.RULE), "rules"),
        (["abstain"], NumbersBackend(UNSURE), (Outcome.ABSTAINED, Reason.NO_UPSTREAM), "abstain"),
        (["abstain"], BROKEN, (Outcome.ABSTAINED, Reason.LOCAL_FAILED), "abstain"),
        (["lower", "abstain"], BROKEN, (Outcome.ABSTAINED, Reason.LOCAL_FAILED), "abstain"),
    ],
)
async def test_the_first_resort_that_has_anything_is_followed(
    order: Sequence[Resort],
    backend: NumbersBackend,
    end: tuple[Outcome, Reason],
    resort: str,
) -> None:
    answer, tier = await alone(falling(*order), backend)

    assert (answer.outcome, answer.reason) == end
    assert counted(tier, resort)
    assert answer.has_answer == (answer.outcome is Outcome.DEGRADED)
    assert answer.guarantee is not Guarantee.CERTIFIED
    (line,) = tier.log.records
    assert (line.outcome, line.reason) == (end[0].value, end[1].value)


async def test_a_fallback_rule_gives_its_label_and_no_confidence() -> None:
    answer, _ = await alone(falling("rules"), NumbersBackend(UNSURE))

    assert (answer.label, answer.label_name, answer.confidence) == (2, "owl", None)
    assert answer.outputs["logits"].argmax() == 2
    # What the model said stays in the provenance.
    assert answer.hops[0].confidence is not None
    assert answer.guarantee is Guarantee.SUSPENDED
    assert "fell back on the rule when-dark" in told(answer)


async def test_where_no_fallback_rule_holds_what_is_in_hand_is_withheld() -> None:
    answer, tier = await alone(falling("rules"), NumbersBackend(UNSURE), asked=BRIGHT)

    assert ended(answer) == (Outcome.ABSTAINED, Reason.NO_UPSTREAM, None)
    assert answer.outputs == {}
    assert counted(tier, "none")
    assert "had no resort left" in told(answer)


@pytest.mark.parametrize(
    ("backend", "outcome", "label"),
    [(NumbersBackend(UNSURE), Outcome.DEGRADED, 0), (BROKEN, Outcome.ABSTAINED, -1)],
)
async def test_a_person_gets_what_no_tier_could_answer(
    backend: NumbersBackend, outcome: Outcome, label: int
) -> None:
    queue = ListQueue()

    answer, tier = await alone(falling("review", "lower"), backend, reviews=queue)

    assert (answer.outcome, answer.reason) == (outcome, Reason.REVIEW)
    (item,) = queue.items
    assert (item.tier, item.label, item.label_name == "") == ("edge", label, label < 0)
    assert item.due_s > item.wall_s
    assert counted(tier, "review")
    assert "left it to a person" in told(answer)


@pytest.mark.parametrize("says", ["full", "failed"])
async def test_a_queue_without_room_leaves_it_to_the_next_resort(says: Any) -> None:
    queue = ListQueue(says)

    answer, tier = await alone(falling("review", "lower"), reviews=queue)

    assert ended(answer)[:2] == (Outcome.DEGRADED, Reason.NO_UPSTREAM)
    assert counted(tier, "lower")


async def test_a_batch_is_not_reviewed_and_what_may_not_leave_can_be_reviewed_where_it_is() -> None:
    queue = ListQueue()
    batch = {"inputs": {"x": np.zeros((2, 2), np.float32)}}
    kept = {"residency": Residency.DEVICE}

    several, _ = await alone(falling("review"), reviews=queue, asked=batch)
    local, _ = await alone(falling("review"), reviews=queue, asked=kept)

    assert several.outcome is Outcome.ABSTAINED
    assert local.reason is Reason.REVIEW
    assert [item.residency for item in queue.items] == ["device"]


async def test_an_answer_that_stands_needs_no_resort() -> None:
    answer, tier = await alone(falling("abstain"), NumbersBackend(SURE))

    assert answer.outcome is Outcome.ANSWERED
    assert "fallbacks_total{" not in tier.metrics.render()[0].decode()


async def test_only_the_tier_where_a_journey_begins_has_resorts() -> None:
    broker, followed = MemoryBroker(), falling("rules")
    device = edge(broker, gearbox=gearbox(Tier.EDGE, followed))
    region = gateway(broker, gearbox=gearbox(Tier.REGIONAL, followed))
    top = cloud(broker, BROKEN, gearbox=gearbox(Tier.CLOUD, followed))
    async with AsyncExitStack() as stack:
        await online(stack, device, region, top)
        answer, _ = await ask(device)

    assert ended(answer) == (Outcome.DEGRADED, Reason.RULE, 2)
    assert "fallbacks_total{" not in region.metrics.render()[0].decode()
    assert counted(device, "rules")


async def test_a_rule_that_asks_in_vain_falls_back_too() -> None:
    followed = policy(*CHAIN.gears, rules=(rule(NIGHT, ask="cloud"),), fallback=("abstain",))

    answer, tier = await alone(followed, asked={"context": {"shift": "night"}})

    assert answer.outcome is Outcome.ABSTAINED
    assert counted(tier, "abstain")


async def test_without_an_order_the_best_in_hand_goes_out_as_ever() -> None:
    answer, tier = await alone(policy(*CHAIN.gears))

    assert ended(answer)[:2] == (Outcome.DEGRADED, Reason.NO_UPSTREAM)
    assert "fallbacks_total{" not in tier.metrics.render()[0].decode()
