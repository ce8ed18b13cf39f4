"""Rules in a hierarchy: who answers, what is sent, what is counted, and what is told."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.decisions import write_log
from fakes.gears import CHAIN, gearbox, policy
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.rules import DARK, NIGHT, rule, said
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend, tiers_that_worked
from runtime.adapters.explain_query import find_decisions, story_of
from runtime.adapters.memory_broker import MemoryBroker
from runtime.adapters.policy_file import KnownPolicy
from runtime.adapters.replay_log import read_recorded
from runtime.core.audit import AuditSettings
from runtime.core.confidence import confidence_of_batch
from runtime.core.story import paragraphs
from runtime.exchange.explaining import parse_story
from runtime.messages import Guarantee, Outcome, Reason, Residency, Tier
from runtime.policy import Policy, digest_of, encode_policy
from runtime.policy_rules import Rule

AT_NIGHT: dict[str, Any] = {"context": {"shift": "night"}}


def following(*rules: Rule) -> Policy:
    return policy(*CHAIN.gears, rules=rules)


def hierarchy(
    followed: Policy, *, region: NumbersBackend | None = None, **options: Any
) -> tuple[FakeTier, FakeTier, FakeTier]:
    broker = MemoryBroker()
    return (
        edge(broker, gearbox=gearbox(Tier.EDGE, followed), **options),
        gateway(broker, *([region] if region else []), gearbox=gearbox(Tier.REGIONAL, followed)),
        cloud(broker, gearbox=gearbox(Tier.CLOUD, followed)),
    )


async def test_a_rule_answers_for_every_example_without_a_model() -> None:
    (tier, *_) = hierarchy(following(rule(DARK, name="lens-cap", answer="owl")))
    batch = {"x": np.zeros((4, 2), np.float32)}
    async with tier:
        answer, _ = await ask(tier, inputs=batch)
        bright, _ = await ask(tier, request_id="q2", inputs={"x": np.ones((1, 2), np.float32)})

    assert (answer.outcome, answer.reason, answer.tier) == (
        Outcome.ANSWERED, Reason.RULE, Tier.EDGE,
    )  # fmt: skip
    assert (answer.label, answer.label_name, answer.confidence) == (2, "owl", None)
    assert answer.guarantee is Guarantee.NONE
    (hop,) = answer.hops
    assert (hop.reason, hop.rule, hop.label, hop.confidence) == (Reason.RULE, "lens-cap", 2, None)
    logits = answer.outputs["logits"]
    assert logits.shape == (4, 3)
    assert logits.dtype == np.float32
    assert logits.argmax(axis=1).tolist() == [2] * 4
    assert np.isfinite(logits).all()
    assert confidence_of_batch(logits[:1]).probability == pytest.approx(1)
    # Only the bright picture needed the model.
    assert bright.reason is not Reason.RULE
    assert tier.backends[0].num_runs == 1


async def test_a_rules_answer_has_the_outputs_that_were_asked_for() -> None:
    (tier, *_) = hierarchy(following(rule(DARK, answer="owl")))
    async with tier:
        answer, _ = await ask(tier, outputs=("logits",))

    assert list(answer.outputs) == ["logits"]


async def test_what_a_rule_decides_is_counted_and_logged_apart() -> None:
    audits = AuditSettings(rate=1.0)
    (tier, *_) = hierarchy(
        following(rule(NIGHT, name="night", answer="cat"), rule(DARK, name="never")),
        audits=audits,
    )
    async with tier:
        await ask(tier, **AT_NIGHT)

    (record,) = tier.log.records
    assert (record.decided_because, record.reason, record.rule) == ("rule", "rule", "night")
    assert (record.policy, record.gear) == (tier.flow.gearbox.digest, "")
    assert (record.label, record.seen, record.audit_chance) == (0, "", 0)
    assert tier.counted('tierwise_edge_rules_total{rule="night"}') == 1
    assert 'rules_total{rule="never"} 0.0' in tier.metrics.render()[0].decode()
    assert tier.counted("tierwise_edge_guarantees_total") == 0
    assert tier.counted("tierwise_edge_audits_total") == 0


async def test_a_value_that_cannot_be_compared_is_counted() -> None:
    (tier, *_) = hierarchy(following(rule(said("shift", "<", 3.0), name="r")))
    async with tier:
        await ask(tier, **AT_NIGHT)

    assert tier.counted('tierwise_edge_unusable_rule_values_total{rule="r"}') == 1
    assert tier.log.records[0].rule == ""


@pytest.mark.parametrize(
    ("condition", "asked"),
    [
        (said("tierwise.residency", "==", "device"), {"residency": Residency.DEVICE}),
        (said("tierwise.priority", ">=", 5.0), {"priority": 7}),
        (said("tierwise.budget_ms", "<", 900.0), {"budget_ms": 800.0}),
    ],
)
async def test_some_context_is_always_there(
    condition: dict[str, Any], asked: dict[str, Any]
) -> None:
    (tier, *_) = hierarchy(following(rule(condition, answer="dog")))
    async with tier:
        ruled, _ = await ask(tier, **asked)
        other, _ = await ask(tier, request_id="q2")

    assert (ruled.reason, other.reason is Reason.RULE) == (Reason.RULE, False)


async def test_a_forced_tier_answers_and_no_model_below_it_runs() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy(following(rule(NIGHT, name="night")))
        await online(stack, *tiers)

        answer, _ = await ask(device, **AT_NIGHT)

    assert (answer.outcome, answer.tier, answer.guarantee) == (
        Outcome.ANSWERED, Tier.CLOUD, Guarantee.NONE,
    )  # fmt: skip
    assert tiers_that_worked(answer) == ["edge", "regional", "cloud"]
    assert (answer.hops[0].reason, answer.hops[0].rule) == (Reason.RULE, "night")
    assert [tier.backends[0].num_runs for tier in tiers] == [0, 0, 1]
    assert device.log.records[0].decided_because == "rule"
    assert device.log.records[0].route == "cloud"
    # What the caller said of the request stays on the device.
    assert {one.rule for one in (*region.log.records, *top.log.records)} == {""}


async def test_the_answer_of_a_forced_tier_stands_however_unsure_it_is() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy(following(rule(NIGHT, ask="regional")))
        await online(stack, *tiers)

        answer, _ = await ask(device, **AT_NIGHT)

    assert (answer.outcome, answer.reason, answer.tier) == (
        Outcome.ANSWERED, Reason.TOP_TIER, Tier.REGIONAL,
    )  # fmt: skip
    assert top.backends[0].num_runs == 0
    assert region.log.records[0].action == "answer"


async def test_our_own_model_stands_where_a_rule_names_this_tier() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(following(rule(NIGHT, ask="edge")))
        await online(stack, *tiers)

        answer, _ = await ask(device, **AT_NIGHT)
        other, _ = await ask(device, request_id="q2")

    assert (answer.outcome, answer.reason, answer.tier) == (
        Outcome.ANSWERED, Reason.RULE, Tier.EDGE,
    )  # fmt: skip
    assert answer.confidence is not None
    assert answer.confidence < 0.5
    assert other.tier is Tier.CLOUD
    assert region.backends[0].num_runs == 1


@pytest.mark.parametrize(
    ("backend", "outcome", "reason"),
    [
        (NumbersBackend(is_broken=True), Outcome.FAILED, Reason.LOCAL_FAILED),
        (NumbersBackend((np.nan,) * 3), Outcome.ABSTAINED, Reason.NO_CONFIDENCE),
    ],
)
async def test_a_forced_own_model_that_gives_nothing_is_no_answer(
    backend: NumbersBackend, outcome: Outcome, reason: Reason
) -> None:
    followed = following(rule(NIGHT, ask="edge"))
    tier = edge(MemoryBroker(), backend, gearbox=gearbox(Tier.EDGE, followed))
    async with tier:
        answer, _ = await ask(tier, **AT_NIGHT)

    assert (answer.outcome, answer.reason, answer.hops[0].rule) == (outcome, reason, "r")


@pytest.mark.parametrize("ends_at", ["regional", "cloud"])
async def test_residency_comes_before_a_forced_tier(ends_at: str) -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(following(rule(NIGHT, ask=ends_at)))
        await online(stack, *tiers)

        answer, _ = await ask(device, residency=Residency.DEVICE, **AT_NIGHT)

    assert (answer.outcome, answer.reason, answer.tier) == (
        Outcome.DEGRADED, Reason.RESIDENCY, Tier.EDGE,
    )  # fmt: skip
    assert answer.hops[0].rule == "r"
    assert region.log.records == []


async def test_where_a_forced_tier_is_out_of_reach_our_own_model_answers() -> None:
    (tier, *_) = hierarchy(following(rule(NIGHT)))
    async with tier:
        answer, _ = await ask(tier, explain=True, **AT_NIGHT)

    assert (answer.outcome, answer.reason, answer.tier) == (
        Outcome.DEGRADED, Reason.NO_UPSTREAM, Tier.EDGE,
    )  # fmt: skip
    told = parse_story(answer.explanation).tiers[0]
    assert "The rule r of the policy sends such requests to the cloud." in told.words
    assert told.otherwise == ("It would have asked the cloud had the link been up.",)


async def test_rules_are_for_requests_that_begin_here() -> None:
    followed = following(rule(said("tierwise.priority", ">=", 0.0), answer="cat"))
    async with AsyncExitStack() as stack:
        broker = MemoryBroker()
        device = edge(broker, NumbersBackend(UNSURE))
        region = gateway(broker, NumbersBackend(SURE), gearbox=gearbox(Tier.REGIONAL, followed))
        await online(stack, device, region)

        answer, _ = await ask(device)

    assert answer.reason is Reason.CONFIDENT
    assert region.flow.gearbox.rules.names == ()


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (rule(NIGHT, answer="owl"), "chose owl by the rule r, without a model."),
        (rule(NIGHT, ask="cloud"), "sends such requests to the cloud, so it asked the cloud."),
        (rule(NIGHT, ask="edge"), "has it answer such requests itself, however sure it is."),
    ],
)
async def test_the_log_and_the_answer_tell_the_same(
    tmp_path: Path, made: Rule, sentence: str
) -> None:
    followed = following(made)
    async with AsyncExitStack() as stack:
        tiers = hierarchy(followed)
        await online(stack, *tiers)
        answer, _ = await ask(tiers[0], explain=True, **AT_NIGHT)
    paths = [write_log(tmp_path / one.identity.site, *one.log.records) for one in tiers]
    known = KnownPolicy(followed, digest_of(encode_policy(followed)), "policy.json")

    logged = story_of(find_decisions(paths, "q1"), known=known)

    said_by_answer = parse_story(answer.explanation)
    assert logged.tiers[0].words == said_by_answer.tiers[0].words
    assert logged.tiers[0].otherwise == said_by_answer.tiers[0].otherwise
    assert logged.ending == said_by_answer.ending
    assert sentence in " ".join(paragraphs(logged))
    assert 'The rule would not have decided without: shift == "night".' in paragraphs(logged)[3]


async def test_without_the_policy_conditions_are_not_made_up(tmp_path: Path) -> None:
    (tier, *_) = hierarchy(following(rule(NIGHT, answer="owl")))
    async with tier:
        await ask(tier, **AT_NIGHT)

    story = story_of(find_decisions([write_log(tmp_path, *tier.log.records)], "q1"))

    assert story.tiers[0].otherwise == ()
    assert "label 2 by the rule r" in story.tiers[0].words[0]


async def test_replay_leaves_out_what_rules_decided_and_says_how_many(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        tiers = hierarchy(following(rule(NIGHT, ask="edge"), rule(DARK, name="s", answer="cat")))
        await online(stack, *tiers)
        await ask(tiers[0], **AT_NIGHT)
        await ask(tiers[0], request_id="q2")
        await ask(tiers[0], request_id="q3", inputs={"x": np.ones((1, 2), np.float32)})

    found = read_recorded([write_log(tmp_path, *tiers[0].log.records)], since_s=0)

    assert [one.request_id for one in found.requests] == ["q3"]
    assert (found.num_by_rule, found.num_left_out) == (2, 0)


def test_the_hop_of_a_rule_is_one_more_field_of_the_provenance() -> None:
    schema = json.loads(
        (Path(__file__).parents[1] / "golden" / "control_plane.schema.json").read_text()
    )

    assert schema["provenance"]["$defs"]["Hop"]["properties"]["rule"]["default"] == ""
