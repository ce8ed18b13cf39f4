"""An output of the lower model climbs in place of the inputs, to the model that was made for it."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog

from fakes.embeddings import (
    EMBEDDING,
    HALF,
    OTHER,
    PASSED,
    asked,
    digest_of,
    head,
    head_backend,
    head_of,
    tail,
    tail_of,
    top,
)
from fakes.hierarchy import ask, gateway, online
from fakes.tiers import INPUTS, OUTPUTS, SURE, UNSURE, FakeTier, NumbersBackend, manifest, request
from runtime.adapters.memory_bus import MemoryBroker
from runtime.deadline import Deadline
from runtime.errors import EmbeddingError, MalformedBodyError
from runtime.exchange.climbing import Climbing
from runtime.exchange.uplink import UpstreamReply
from runtime.exchange.wire import parse_request, request_message
from runtime.manifest import ModelManifest, decode_manifest, encode_manifest, model_digest
from runtime.messages import Answer, Outcome, Reason, Residency, TensorSpec, Tier

NEVER = float("nan")


async def _asked(*tiers: FakeTier, **fields: Any) -> Answer:
    async with AsyncExitStack() as stack:
        await online(stack, *tiers)
        answer, _ = await ask(tiers[0], **fields)
    return answer


async def test_what_the_device_is_unsure_of_climbs_as_its_embedding() -> None:
    broker = MemoryBroker()
    device, above = head(broker), tail(broker)

    answer = await _asked(device, above, explain=True)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
    np.testing.assert_array_equal(asked(above)["embedding"], [PASSED])
    assert set(asked(above)) == {"embedding"}
    assert answer.hops[0].forwarded == "embedding"
    (line,) = device.log.records
    assert line.forwarded == "embedding"
    story = json.loads(answer.explanation)
    assert any(
        "output 'embedding' up, not the inputs" in text for text in story["tiers"][0]["words"]
    )


async def test_what_the_device_is_sure_of_stays_there_and_keeps_its_embedding() -> None:
    broker = MemoryBroker()
    device, above = head(broker, head_backend(SURE)), tail(broker)

    answer = await _asked(device, above)

    assert answer.tier is Tier.EDGE
    # It is there for the tier above; whoever wants it asks for it by name.
    assert set(answer.outputs) == {"logits"}
    assert device.log.records[0].forwarded == ""
    assert not above.backends[0].asked


async def test_a_caller_that_asks_for_the_embedding_gets_it_and_the_tail_does_not_mind() -> None:
    broker = MemoryBroker()
    sure = await _asked(head(broker, head_backend(SURE)), outputs=("embedding",))
    unsure = await _asked(head(broker), tail(broker), outputs=("logits", "embedding"))

    assert set(sure.outputs) == {"embedding"}
    assert unsure.tier is Tier.REGIONAL
    assert set(unsure.outputs) == {"logits"}


async def test_half_precision_is_half_as_long_on_the_way() -> None:
    broker = MemoryBroker()
    device = head(broker, described_as=head_of(HALF))
    above = tail(broker, described_as=tail_of(spec=HALF))

    answer = await _asked(device, above)

    assert answer.tier is Tier.REGIONAL
    assert asked(above)["embedding"].dtype == np.float16
    assert asked(above)["embedding"].nbytes == 8


async def test_a_model_that_was_not_made_for_it_refuses_and_the_device_answers() -> None:
    broker = MemoryBroker()
    device, above = head(broker), tail(broker, OTHER)

    with structlog.testing.capture_logs() as lines:
        async with AsyncExitStack() as stack:
            await online(stack, device, above)
            answers = [(await ask(device, request_id=name))[0] for name in ("a", "b")]

    assert {(one.outcome, one.reason, one.tier) for one in answers} == {
        (Outcome.DEGRADED, Reason.UPSTREAM_REFUSED, Tier.EDGE)
    }
    assert not above.backends[0].asked
    assert above.counted('tierwise_regional_refused_requests_total{code="embedding_mismatch"}') == 2
    # Once, not for every request.
    assert [one["event"] for one in lines if one["event"].startswith("embedding")] == [
        "embedding.refused"
    ]


async def test_a_pair_that_fits_again_is_told() -> None:
    broker = MemoryBroker()
    device = head(broker)
    flow = device.flow._climbing

    with structlog.testing.capture_logs() as lines:
        async with AsyncExitStack() as stack:
            wrong = tail(broker, OTHER, site="wrong")
            await online(stack, device, wrong)
            await ask(device)
            flow.heard(_heard())

    assert [one["event"] for one in lines if one["event"].startswith("embedding")] == [
        "embedding.refused",
        "embedding.accepted",
    ]


def _heard() -> Any:
    answer = Answer("q", Outcome.ANSWERED, Reason.CONFIDENT, ())
    return UpstreamReply(Outcome.ANSWERED, Reason.CONFIDENT, answer)


async def test_a_tail_that_names_several_heads_takes_each() -> None:
    broker = MemoryBroker()

    answer = await _asked(head(broker), tail(broker, OTHER, digest_of(Tier.EDGE)))

    assert answer.tier is Tier.REGIONAL


async def test_a_tail_that_names_nobody_takes_what_fits() -> None:
    broker = MemoryBroker()
    above = tail(broker, described_as={"inputs": (EMBEDDING,)})

    assert (await _asked(head(broker), above)).tier is Tier.REGIONAL


@pytest.mark.parametrize(
    "inputs",
    [
        INPUTS,
        (TensorSpec("embedding", "FP32", (-1, 5)),),
        (TensorSpec("embedding", "FP16", (-1, 4)),),
        (TensorSpec("features", "FP32", (-1, 4)),),
    ],
)
async def test_a_model_above_with_other_inputs_refuses_and_the_device_answers(
    inputs: tuple[TensorSpec, ...],
) -> None:
    broker = MemoryBroker()
    above = tail(broker, described_as={"inputs": inputs})

    answer = await _asked(head(broker), above)

    assert (answer.outcome, answer.tier) == (Outcome.DEGRADED, Tier.EDGE)
    assert not above.backends[0].asked


@pytest.mark.parametrize("inputs", [{"embedding": PASSED[None]}, {"x": np.zeros((1, 2), "f4")}])
async def test_a_tail_answers_no_caller_whose_inputs_come_from_nowhere(inputs: Any) -> None:
    async with tail(MemoryBroker()) as above:
        with pytest.raises(EmbeddingError, match="a caller's"):
            above.flow.check(request(inputs=inputs))


async def test_what_may_not_leave_the_device_does_not_leave_as_an_embedding() -> None:
    broker = MemoryBroker()
    device, above = head(broker), tail(broker)

    answer = await _asked(device, above, residency=Residency.DEVICE)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.RESIDENCY)
    assert not above.backends[0].asked
    assert device.log.records[0].sent_bytes == 0


async def test_a_region_is_as_far_as_an_embedding_gets_where_its_inputs_get_no_further() -> None:
    broker = MemoryBroker()
    device, middle = head(broker), tail(broker, backend=NumbersBackend(UNSURE))
    highest = top(broker)

    answer = await _asked(device, middle, highest, residency=Residency.REGION)

    assert answer.tier is Tier.REGIONAL
    assert not highest.backends[0].asked


BROKEN = {
    "broken": NumbersBackend(UNSURE, is_broken=True),
    "without its embedding": NumbersBackend(UNSURE),
    "with one that is NaN": head_backend(UNSURE, (1.0, NEVER, 0.0, 0.0)),
    "with an infinite one": head_backend(UNSURE, (1.0, np.inf, 0.0, 0.0)),
    "with an empty one": head_backend(UNSURE, np.zeros(0)),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
@pytest.mark.parametrize("route", [(), (Tier.REGIONAL,), (Tier.EDGE, Tier.REGIONAL)])
async def test_without_an_embedding_nothing_climbs(kind: str, route: tuple[Tier, ...]) -> None:
    broker, backend = MemoryBroker(), BROKEN[kind]
    device, above = head(broker, backend), tail(broker)

    answer = await _asked(device, above, route=route)

    is_failed = backend.is_broken
    assert answer.outcome is (Outcome.FAILED if is_failed else Outcome.DEGRADED)
    assert answer.reason is Reason.LOCAL_FAILED
    assert not above.backends[0].asked
    assert device.log.records[0].sent_bytes == 0
    assert device.log.records[0].action == "answer"


async def test_numbers_too_large_for_half_precision_do_not_climb() -> None:
    broker = MemoryBroker()
    device = head(broker, head_backend(UNSURE, PASSED * 1e6), described_as=head_of(HALF))
    above = tail(broker, described_as=tail_of(spec=HALF))

    answer = await _asked(device, above)

    assert answer.reason is Reason.LOCAL_FAILED
    assert not above.backends[0].asked


async def test_scores_that_say_nothing_do_not_keep_the_embedding_back() -> None:
    broker = MemoryBroker()
    device = head(broker, head_backend((NEVER, 0.0, 1.0)))

    answer = await _asked(device, tail(broker))

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)


@pytest.mark.parametrize("route", [(Tier.REGIONAL,), (Tier.EDGE, Tier.REGIONAL)])
async def test_a_route_past_the_device_runs_its_model_first(route: tuple[Tier, ...]) -> None:
    broker = MemoryBroker()
    device, above = head(broker), tail(broker)

    answer = await _asked(device, above, route=route)

    assert (answer.outcome, answer.tier) == (Outcome.ANSWERED, Tier.REGIONAL)
    assert device.backends[0].num_runs == 1
    np.testing.assert_array_equal(asked(above)["embedding"], [PASSED])
    assert answer.hops[0].forwarded == "embedding"


async def test_a_route_past_the_device_that_fails_leaves_what_its_model_said() -> None:
    broker = MemoryBroker()
    device = head(broker)
    above = tail(broker, backend=NumbersBackend(is_broken=True))

    answer = await _asked(device, above, route=(Tier.REGIONAL,))

    assert (answer.outcome, answer.tier) == (Outcome.DEGRADED, Tier.EDGE)
    # It has run once, not once for the embedding and once for the answer.
    assert device.backends[0].num_runs == 1


async def test_a_third_tier_gets_the_embedding_unchanged() -> None:
    broker = MemoryBroker()
    device, middle = head(broker), tail(broker, backend=NumbersBackend(UNSURE))
    highest = top(broker)

    answer = await _asked(device, middle, highest)

    assert answer.tier is Tier.CLOUD
    np.testing.assert_array_equal(asked(highest)["embedding"], [PASSED])
    assert [hop.forwarded for hop in answer.hops] == ["embedding", "", ""]
    assert middle.log.records[0].forwarded == ""


async def test_a_third_tier_for_the_embedding_of_the_second_takes_that_one_only() -> None:
    broker = MemoryBroker()
    middle_says = {**tail_of(), **head_of()}
    own = model_digest(msgspec.structs.replace(manifest(Tier.REGIONAL), **middle_says))
    middle = gateway(broker, head_backend(UNSURE, PASSED * 2), described_as=middle_says)
    device, highest = head(broker), top(broker, own)

    answer = await _asked(device, middle, highest)

    assert answer.tier is Tier.CLOUD
    np.testing.assert_array_equal(asked(highest)["embedding"], [PASSED * 2])


async def test_a_route_past_the_second_tier_passes_the_embedding_on() -> None:
    broker = MemoryBroker()
    device, middle, highest = head(broker), tail(broker), top(broker)

    answer = await _asked(device, middle, highest, route=(Tier.CLOUD,))

    assert answer.tier is Tier.CLOUD
    assert not middle.backends[0].asked
    np.testing.assert_array_equal(asked(highest)["embedding"], [PASSED])


async def test_the_link_is_judged_by_what_goes_over_it() -> None:
    """A request of many bytes with a short embedding is a short message."""
    broker = MemoryBroker()
    wide = {**head_of(), "inputs": (TensorSpec("x", "FP32", (-1, 5000)),)}
    device, above = head(broker, described_as=wide), tail(broker)

    # 20,000 bytes, which the gateway would refuse.
    answer = await _asked(device, above, inputs={"x": np.zeros((1, 5000), np.float32)})

    assert answer.tier is Tier.REGIONAL
    assert 0 < device.log.records[0].sent_bytes < 2000


def _climbing(**changes: Any) -> Climbing:
    return Climbing(msgspec.structs.replace(manifest(Tier.EDGE), **changes))


async def test_the_output_of_a_stand_in_goes_under_its_own_name() -> None:
    """A model that answers in place of the usual one has another embedding, or none."""
    async with head(MemoryBroker()) as device:
        own = await device.model.infer(
            request().inputs, Deadline.after(device.clock.monotonic_s(), 1000)
        )
    spare = msgspec.structs.replace(manifest(Tier.EDGE), **head_of(), temperature=2.0)
    onward = _climbing(**head_of()).onward(request(), replace(own, said_by=spare))
    without = _climbing(**head_of()).onward(request(), replace(own, said_by=manifest(Tier.EDGE)))

    assert onward is not None
    assert onward.forwarded_by == model_digest(spare) != digest_of(Tier.EDGE)
    assert without is None


def test_the_digest_travels_and_another_form_of_it_is_refused() -> None:
    asked_for = request(forwarded_by=OTHER)
    message = request_message(
        asked_for, topic="t", response_topic="r", correlation=b"c", remaining_ms=10
    )

    found, _ = parse_request(message, default_model="m", remaining_ms=10, max_bytes=10_000)

    assert found.forwarded_by == OTHER
    for wrong in ("f" * 63, "F" * 64, "f" * 64 + "\n", "../" * 20):
        user = tuple((k, wrong if k == "forwarded-by" else v) for k, v in message.user)
        with pytest.raises(MalformedBodyError, match="forwarded-by"):
            parse_request(
                replace(message, user=user), default_model="m", remaining_ms=10, max_bytes=10_000
            )


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"forwards": "embedding"}, "no output of floats"),
        ({"forwards": "logits"}, "no output of floats"),
        ({**head_of(TensorSpec("embedding", "INT8", (-1, 4)))}, "no output of floats"),
        ({**head_of(TensorSpec("embedding", "FP32", (4,)))}, "no output of floats"),
    ],
)
def test_a_manifest_forwards_an_output_that_can_climb(
    changes: dict[str, Any], because: str
) -> None:
    with pytest.raises(ValueError, match=because):
        msgspec.structs.replace(manifest(Tier.EDGE), **changes)


def test_an_ensemble_has_no_embedding_of_its_own() -> None:
    with pytest.raises(ValueError, match="single member"):
        msgspec.structs.replace(manifest(Tier.EDGE, 2), **head_of())


def test_manifests_without_the_fields_keep_their_digest() -> None:
    """Policies of earlier versions are bound to it."""
    plain = manifest(Tier.EDGE)
    two = msgspec.structs.replace(plain, outputs=(*OUTPUTS, EMBEDDING))
    said: ModelManifest = msgspec.structs.replace(plain, **head_of())

    assert model_digest(plain) == (
        "de8308be28800b96713a92312953c929773a35cd1b816237185dd29a1e3e7ca2"
    )
    assert model_digest(two) == model_digest(plain)
    assert model_digest(msgspec.structs.replace(plain, accepts_from=(OTHER,))) == model_digest(
        plain
    )
    # What climbs is part of what a policy was fitted on.
    assert model_digest(said) != model_digest(plain)
    assert decode_manifest(encode_manifest(said), "it") == said
    assert b"accepts_from" not in encode_manifest(plain)
