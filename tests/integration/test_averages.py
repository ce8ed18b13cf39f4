"""Tiers whose gear averages: what they tell one another, and whose answer it is in the end."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from fakes.decisions import write_log
from fakes.gears import CHAIN, gear, gearbox, policy, table
from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.tiers import FakeTier, NumbersBackend, manifest, request
from fakes.waiting import eventually
from runtime.adapters.explain_query import find_decisions, story_of
from runtime.adapters.memory_bus import MemoryBroker
from runtime.adapters.policy_file import read_policy
from runtime.averages import Average
from runtime.core.audit import AuditSettings
from runtime.core.beliefs import believed
from runtime.core.confidence import confidence_of_batch, softmax
from runtime.core.gearbox import Engaged
from runtime.core.seen import parse_seen
from runtime.errors import MalformedBodyError
from runtime.exchange.averaging import told
from runtime.exchange.explaining import parse_story
from runtime.local_model import LocalResult
from runtime.messages import Answer, Guarantee, InferenceRequest, Outcome, Reason, Tier
from runtime.policy import DecisionTable, Policy, encode_policy

# Unsure to the device's table; the gateway, by itself, is sure of a dog.
CAT, DOG, OWL = (2.0, 0.0, 0.0), (0.0, 2.4, 0.0), (0.0, 0.0, 2.0)
AT_EDGE = table("edge", to=("regional",))
AT_REGIONAL = table("edge", "regional", to=("cloud",))
AVERAGES = (
    Average(("edge", "regional"), (0.6, 0.4)),
    Average(("edge", "cloud"), (0.3, 0.7)),
    Average(("edge", "regional", "cloud"), (0.2, 0.3, 0.5)),
)
SURE_FROM = 0.4


def sure_from(score: float, one: DecisionTable) -> DecisionTable:
    return msgspec.structs.replace(one, edges=((score,),) * len(one.edges))


# The gateway's answer stands where the average is at least 0.4, which it is for CAT and DOG.
STANDS = policy(gear(AT_EDGE, sure_from(SURE_FROM, AT_REGIONAL), averages=AVERAGES))
CLIMBS = policy(gear(AT_EDGE, AT_REGIONAL, averages=AVERAGES))
SKIPS = policy(gear(table("edge", to=("cloud",)), averages=AVERAGES))


def hierarchy(followed: Policy, **options: Any) -> tuple[FakeTier, FakeTier, FakeTier]:
    """A device that sees a cat, a gateway that sees a dog, a cloud that sees an owl."""
    broker = MemoryBroker()
    return (
        edge(broker, NumbersBackend(CAT), gearbox=gearbox(Tier.EDGE, followed), **options),
        gateway(broker, NumbersBackend(DOG), gearbox=gearbox(Tier.REGIONAL, followed)),
        cloud(broker, NumbersBackend(OWL), gearbox=gearbox(Tier.CLOUD, followed)),
    )


def mixed(weights: tuple[float, ...], *logits: tuple[float, ...]) -> npt.NDArray[np.float64]:
    shares = [softmax(np.array(one)) for one in logits]
    found: npt.NDArray[np.float64] = np.average(shares, axis=0, weights=weights)
    return found


def held(*logits: float) -> bytes:
    belief = believed(softmax(np.array(logits)))
    assert belief is not None
    return belief.tobytes()


def as_average(answer: Answer, expected: npt.NDArray[np.float64]) -> None:
    """The answer is that of a mixture, in all that it says."""
    assert answer.label == expected.argmax()
    assert answer.confidence == pytest.approx(expected.max(), abs=1e-4)
    shares = softmax(answer.outputs["logits"])
    assert shares == pytest.approx(expected[np.newaxis], abs=1e-4)


async def test_the_gateways_answer_is_the_average_and_the_device_takes_it() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, top = hierarchy(STANDS)
        await online(stack, *tiers)

        answer, _ = await ask(device)

    # The device's cat outweighs the gateway's dog.
    as_average(answer, mixed((0.6, 0.4), CAT, DOG))
    assert (answer.outcome, answer.tier, answer.label_name) == (
        Outcome.ANSWERED,
        Tier.REGIONAL,
        "cat",
    )
    assert answer.guarantee is Guarantee.CERTIFIED
    assert [hop.averaged for hop in answer.hops] == [False, True]
    assert [hop.label for hop in answer.hops] == [0, 0]
    assert region.log.records[0].score == answer.confidence
    assert top.backends[0].num_runs == 0


async def test_the_top_answers_on_what_every_tier_holds_likely() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, top = hierarchy(CLIMBS)
        await online(stack, *tiers)

        answer, _ = await ask(device)

    as_average(answer, mixed((0.2, 0.3, 0.5), CAT, DOG, OWL))
    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert [hop.averaged for hop in answer.hops] == [False, True, True]
    # What a tier says by itself is what can be replayed; an average is not.
    assert list(parse_seen(device.log.records[0].seen)) == ["edge"]
    assert top.log.records[0].seen == ""


async def test_what_a_skipped_gateway_relays_is_averaged_above_it() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(SKIPS)
        await online(stack, *tiers)

        answer, _ = await ask(device)

    as_average(answer, mixed((0.3, 0.7), CAT, OWL))
    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.CERTIFIED)
    assert region.backends[0].num_runs == 0


async def test_a_broken_gateway_passes_on_what_it_was_told() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, region, _ = hierarchy(STANDS)
        region.backends[0].scores = (np.nan, 0.0, 0.0)
        await online(stack, *tiers)

        answer, _ = await ask(device)

    as_average(answer, mixed((0.3, 0.7), CAT, OWL))
    assert (answer.tier, answer.guarantee) == (Tier.CLOUD, Guarantee.SUSPENDED)


@pytest.mark.parametrize(
    "beliefs",
    [
        (),
        ((Tier.EDGE, held(1.0, 0.0)),),
        ((Tier.EDGE, held(1.0, 0.0, 0.0, 0.0)),),
    ],
    ids=["none", "of fewer classes", "of more classes"],
)
async def test_without_usable_beliefs_the_own_answer_decides_and_nothing_is_promised(
    beliefs: tuple[tuple[Tier, bytes], ...],
) -> None:
    async with AsyncExitStack() as stack:
        tiers = _, region, top = hierarchy(STANDS)
        await online(stack, *tiers)
        asked: dict[str, Any] = {
            "gear": f"{region.flow.gearbox.digest}/g",
            "hop": 1,
            "beliefs": beliefs,
        }

        answer, _ = await ask(region, earlier=((Tier.EDGE, 0),), **asked)
        of_top, _ = await ask(top, earlier=((Tier.EDGE, 0),), **asked)

    as_average(answer, mixed((1.0,), DOG))
    # By its threshold: the table is about averages.
    assert (answer.reason, answer.hops[0].averaged) == (Reason.CONFIDENT, False)
    assert region.log.records[0].gain is None
    assert answer.guarantee is of_top.guarantee is Guarantee.SUSPENDED
    as_average(of_top, mixed((1.0,), OWL))


async def test_a_batch_is_not_averaged() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(STANDS)
        await online(stack, *tiers)

        answer, _ = await ask(device, inputs={"x": np.zeros((2, 2), np.float32)})

    assert answer.guarantee is Guarantee.NONE
    assert not any(hop.averaged for hop in answer.hops)


async def test_an_audit_asks_what_each_tier_says_by_itself() -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(CLIMBS, audits=AuditSettings(rate=2.0))
        await online(stack, *tiers)

        answer, _ = await ask(device)
        await eventually(lambda: bool(device.log.audits))

    (audit,) = device.log.audits
    assert answer.tier is Tier.CLOUD
    found = parse_seen(audit.seen)
    assert {tier: seen.label for tier, seen in found.items()} == {
        "edge": 0,
        "regional": 1,
        "cloud": 2,
    }
    assert audit.agrees


async def test_an_average_is_explained(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(CLIMBS)
        await online(stack, *tiers)
        answer, _ = await ask(device, explain=True)
    path = tmp_path / "policy.json"
    path.write_bytes(encode_policy(CLIMBS))
    logs = [write_log(tmp_path / one.identity.site, *one.log.records) for one in tiers]

    said = parse_story(answer.explanation)
    logged = story_of(find_decisions(logs, answer.request_id), known=read_policy(path))

    sentence = "That is the average of its probabilities with those of the tiers before it."
    for story in (said, logged):
        assert [sentence in tier.words for tier in story.tiers] == [False, True, True]


async def test_a_log_of_a_tier_that_went_alone_tells_of_no_average(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        tiers = device, _, _ = hierarchy(CHAIN)
        await online(stack, *tiers)
        answer, _ = await ask(device)
    path = tmp_path / "policy.json"
    path.write_bytes(encode_policy(CHAIN))
    logs = [write_log(tmp_path / one.identity.site, *one.log.records) for one in tiers]

    logged = story_of(find_decisions(logs, answer.request_id), known=read_policy(path))

    assert not any(tier.averaged for tier in logged.tiers)


@pytest.mark.parametrize("tier", [Tier.REGIONAL, Tier.CLOUD])
def test_beliefs_of_a_tier_from_here_on_are_refused(tier: Tier) -> None:
    asked = gateway(MemoryBroker())

    with pytest.raises(MalformedBodyError, match="no tier below"):
        asked.flow.check(request(beliefs=((tier, held(*CAT)),)))
    asked.model.close()


def heard(engaged: Engaged, tier: Tier, **asked: Any) -> tuple[tuple[Tier, bytes], ...]:
    """What a tier that is asked so tells the next one."""
    logits = np.array([DOG], np.float32)
    own = LocalResult({"logits": logits}, confidence_of_batch(logits), (), 0, 0)
    question: InferenceRequest = request(**asked)
    return told(own, question, engaged, tier, manifest(tier))


def test_only_what_a_gear_averages_is_told() -> None:
    (averaging,), (plain,) = CLIMBS.gears, CHAIN.gears
    two = msgspec.structs.replace(averaging, averages=AVERAGES[:1])
    earlier = {"earlier": ((Tier.EDGE, 0),), "beliefs": ((Tier.EDGE, held(*CAT)),)}
    own = (Tier.REGIONAL, held(*DOG))

    assert heard(Engaged(averaging), Tier.REGIONAL, **earlier) == (*earlier["beliefs"], own)
    assert heard(Engaged(two), Tier.REGIONAL, **earlier) == ()
    assert heard(Engaged(plain), Tier.EDGE) == ()
    # What others may average passes through.
    assert heard(Engaged(), Tier.REGIONAL, **earlier) == earlier["beliefs"]
    assert heard(Engaged(averaging), Tier.EDGE, audit=True) == ()
