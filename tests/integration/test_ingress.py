"""The door of a gateway: whatever arrives ends in one reply or in a counter."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import pytest

from fakes.tiers import SURE, FakeTier, NumbersBackend, request
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.codec import encode_request
from runtime.exchange.wire import CONTROL_CONTENT_TYPE, parse_reply, request_message
from runtime.messages import Guarantee, Outcome, Tier
from runtime.ports import Message

REPLIES = topics.agent_replies("r", "visitor")
TOPIC = topics.gateway_requests("r", "regional-1", "visitor")


@dataclass
class Visitor:
    """A plain client that asks and keeps what it hears."""

    broker: MemoryBroker
    bus: MemoryBus
    region: FakeTier
    heard: list[Message] = field(default_factory=list)

    async def ask(self, message: Message) -> Message:
        before = len(self.heard)
        self.bus.publish(message)
        await eventually(lambda: len(self.heard) > before)
        return self.heard[-1]


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    broker = MemoryBroker()
    async with FakeTier(broker, Tier.REGIONAL, NumbersBackend(SURE)) as region:
        bus = MemoryBus(broker, client_id="visitor")
        visitor = Visitor(broker, bus, region)
        bus.subscribe(REPLIES, visitor.heard.append)
        await bus.start()
        assert await bus.wait_connected(10)
        assert await region.bus.wait_connected(10)
        yield visitor
        await bus.close()


def good(request_id: str = "q1", correlation: bytes = b"c1", remaining_ms: float = 500) -> Message:
    return request_message(
        request(request_id),
        topic=TOPIC,
        response_topic=REPLIES,
        correlation=correlation,
        remaining_ms=remaining_ms,
    )


def with_property(message: Message, name: str, value: str) -> Message:
    kept = tuple((key, old) for key, old in message.user if key != name)
    return replace(message, user=(*kept, (name, value)))


def with_inputs(**inputs: np.ndarray) -> Message:
    body, header_length = encode_request(dict(inputs))
    return with_property(replace(good(), payload=body), topics.HEADER_LENGTH, str(header_length))


async def test_a_good_request_is_answered_with_its_correlation(visitor: Visitor) -> None:
    reply = await visitor.ask(good())

    answer = parse_reply(reply)
    assert reply.correlation_data == b"c1"
    assert reply.content_type == topics.CONTENT_TYPE
    assert reply.property(topics.OUTCOME) == "answered"
    assert int(reply.property(topics.SERVICE_US)) >= 0
    assert (answer.outcome, answer.label_name) == (Outcome.ANSWERED, "cat")


async def test_a_bare_json_body_without_any_property_is_answered_too(visitor: Visitor) -> None:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.5]}
    body = msgspec.json.encode({"id": "from-the-body", "inputs": [tensor]})

    reply = await visitor.ask(Message(topics.any_requests("r", "visitor"), body))

    assert parse_reply(reply).outcome is Outcome.ANSWERED
    assert reply.property(topics.REQUEST_ID) == "from-the-body"
    assert msgspec.json.decode(reply.payload)["outputs"][0]["data"] == list(SURE)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (with_inputs(y=np.zeros((1, 2), np.float32)), "invalid_tensor"),
        (with_inputs(x=np.zeros((1, 2), np.float64)), "invalid_tensor"),
        (with_inputs(x=np.zeros((1, 3), np.float32)), "invalid_tensor"),
        (with_inputs(x=np.full((1, 2), np.nan, np.float32)), "invalid_tensor"),
        (replace(good(), payload=good().payload[:-1]), "invalid_tensor"),
        (replace(good(), payload=good().payload + b"!"), "malformed_body"),
        (replace(good(), payload=b"x" * 10_001), "payload_too_large"),
        (replace(good(), payload=b"{" + good().payload[1:].replace(b":", b";")), "malformed_body"),
        (with_property(good(), topics.HEADER_LENGTH, "99999"), "malformed_body"),
        (with_property(good(), topics.HEADER_LENGTH, "-1"), "malformed_body"),
        (with_property(good(), topics.MODEL, "plants"), "unknown_model"),
        (with_property(good(), topics.REMAINING_MS, "0"), "too_late"),
        (with_property(good(), topics.REMAINING_MS, "-5"), "too_late"),
        (with_property(good(), topics.REMAINING_MS, "soon"), "invalid_budget"),
        (with_property(good(), topics.REMAINING_MS, "nan"), "invalid_budget"),
        (with_property(good(), topics.RESIDENCY, "moon"), "malformed_body"),
        (with_property(good(), topics.RESIDENCY, "device"), "residency"),
        (with_property(good(), topics.PRIORITY, "high"), "malformed_body"),
        (with_property(good(), topics.REQUEST_ID, "x" * 200), "malformed_body"),
        (with_property(good(), topics.ROUTE, "moon"), "malformed_body"),
        (with_property(good(), topics.ROUTE, "edge"), "malformed_body"),
        (with_property(good(), topics.ROUTE, "cloud," * 1000), "malformed_body"),
        (with_property(good(), topics.GEAR, "../../etc/passwd"), "malformed_body"),
        (with_property(good(), topics.EARLIER, "edge=" + "9" * 60), "malformed_body"),
        (with_property(good(), topics.EARLIER, "regional=1"), "malformed_body"),
        (replace(good(), response_topic="someone/else"), "malformed_body"),
        (with_inputs(x=np.zeros((0, 2), np.float32)), "invalid_tensor"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_a_code(
    visitor: Visitor, message: Message, code: str
) -> None:
    reply = await visitor.ask(message)

    assert reply.property(topics.ERROR_CODE) == code
    assert reply.property(topics.OUTCOME) == "failed"
    assert reply.correlation_data == b"c1"
    assert msgspec.json.decode(reply.payload)["error"]
    assert parse_reply(reply).outcome is Outcome.FAILED
    assert visitor.region.backends[0].num_runs == 0
    refused = f'tierwise_regional_refused_requests_total{{code="{code}"}}'
    assert visitor.region.counted(refused) == 1


async def test_correlation_data_that_is_too_long_to_keep_is_refused(visitor: Visitor) -> None:
    reply = await visitor.ask(good(correlation=b"x" * 129))

    assert reply.property(topics.ERROR_CODE) == "malformed_body"
    assert reply.correlation_data == b"x" * 129


async def test_a_copy_by_the_network_is_computed_and_answered_once(visitor: Visitor) -> None:
    visitor.bus.publish(good())
    visitor.bus.publish(good())
    ignored = 'tierwise_regional_ignored_messages_total{kind="duplicate"}'

    await eventually(lambda: visitor.region.counted(ignored) == 1 and visitor.heard)

    assert visitor.region.backends[0].num_runs == 1
    assert len(visitor.heard) == 1


async def test_a_retry_gets_the_same_answer_without_another_computation(visitor: Visitor) -> None:
    first = await visitor.ask(good(correlation=b"c1"))
    second = await visitor.ask(good(correlation=b"c2"))

    assert (first.correlation_data, second.correlation_data) == (b"c1", b"c2")
    assert first.payload == second.payload
    assert visitor.region.backends[0].num_runs == 1


async def test_a_retry_while_the_first_is_worked_on_joins_it(visitor: Visitor) -> None:
    visitor.region.backends[0].release = threading.Event()
    visitor.bus.publish(good(correlation=b"c1", remaining_ms=5000))
    visitor.bus.publish(good(correlation=b"c2", remaining_ms=5000))
    ignored = 'tierwise_regional_ignored_messages_total{kind="duplicate"}'
    await eventually(lambda: visitor.region.counted(ignored) == 1)

    visitor.region.backends[0].release.set()

    await eventually(lambda: len(visitor.heard) == 2)
    assert {message.correlation_data for message in visitor.heard} == {b"c1", b"c2"}
    assert visitor.region.backends[0].num_runs == 1


async def test_an_id_that_is_used_for_another_question_gets_the_answer_to_that_one(
    visitor: Visitor,
) -> None:
    def question(num_examples: int, correlation: bytes) -> Message:
        message = with_inputs(x=np.zeros((num_examples, 2), np.float32))
        return with_property(replace(message, correlation_data=correlation), topics.REQUEST_ID, "0")

    first = await visitor.ask(question(1, b"c1"))
    second = await visitor.ask(question(2, b"c2"))

    assert parse_reply(first).outputs["logits"].shape == (1, 3)
    assert parse_reply(second).outputs["logits"].shape == (2, 3)


@pytest.mark.parametrize("text", ["0", "2", "yes", "11"])
async def test_an_audit_is_said_by_1_and_its_refusals_are_counted_apart(
    visitor: Visitor, text: str
) -> None:
    reply = await visitor.ask(with_property(good(), topics.AUDIT, text))

    assert reply.property(topics.ERROR_CODE) == "malformed_body"
    refused = 'tierwise_regional_served_audits_total{result="malformed_body"}'
    assert visitor.region.counted(refused) == 1
    assert visitor.region.counted("tierwise_regional_refused_requests_total") == 0


async def test_an_audit_of_a_request_is_another_question(visitor: Visitor) -> None:
    first = await visitor.ask(good(correlation=b"c1"))
    second = await visitor.ask(with_property(good(correlation=b"c2"), topics.AUDIT, "1"))

    assert parse_reply(second).outcome is parse_reply(first).outcome is Outcome.ANSWERED
    assert visitor.region.backends[0].num_runs == 2
    assert visitor.region.counted("tierwise_regional_answers_total") == 1
    assert len(visitor.region.log.records) == 1


async def test_an_id_that_comes_along_another_route_is_another_question(visitor: Visitor) -> None:
    first = await visitor.ask(good(correlation=b"c1"))
    routed = with_property(good(correlation=b"c2"), topics.ROUTE, "cloud")
    second = await visitor.ask(routed)

    assert first.property(topics.OUTCOME) == "answered"
    # There is no way up from here.
    assert second.property(topics.OUTCOME) == "degraded"


async def test_a_visitor_may_name_any_gear_and_earlier_answer_and_is_promised_nothing(
    visitor: Visitor,
) -> None:
    asked = with_property(good(), topics.GEAR, "0123456789ab/g")
    reply = await visitor.ask(with_property(asked, topics.EARLIER, "edge=2147483647"))

    answer = parse_reply(reply)
    assert (answer.outcome, answer.guarantee) == (Outcome.ANSWERED, Guarantee.NONE)


async def test_more_work_than_fits_is_refused_at_once(visitor: Visitor) -> None:
    visitor.region.backends[0].release = threading.Event()
    for number in range(9):
        visitor.bus.publish(good(f"q{number}", b"%d" % number, remaining_ms=5000))

    await eventually(lambda: visitor.heard)

    assert visitor.heard[0].property(topics.ERROR_CODE) == "overloaded"
    assert visitor.heard[0].correlation_data == b"8"
    assert visitor.region.ingress.queue_len == 8


async def test_a_cancelled_request_frees_its_place_and_may_be_asked_again(
    visitor: Visitor,
) -> None:
    visitor.region.backends[0].release = threading.Event()
    visitor.bus.publish(good(remaining_ms=5000))
    await eventually(lambda: visitor.region.ingress.queue_len == 1)

    cancel = b'{"kind":"cancel","request_id":"q1"}'
    visitor.bus.publish(
        Message(TOPIC, cancel, correlation_data=b"c1", content_type=CONTROL_CONTENT_TYPE)
    )
    await eventually(lambda: visitor.region.ingress.queue_len == 0)
    visitor.region.backends[0].release.set()
    reply = await visitor.ask(good(remaining_ms=5000))

    assert reply.property(topics.OUTCOME) == "answered"


async def test_a_request_that_is_asked_again_right_after_its_cancellation_is_answered(
    visitor: Visitor,
) -> None:
    visitor.region.backends[0].release = threading.Event()
    visitor.bus.publish(good(correlation=b"c1", remaining_ms=5000))
    await eventually(lambda: visitor.region.ingress.queue_len == 1)

    # Both arrive before the cancelled task has had a turn to end.
    cancel = Message(
        TOPIC,
        b'{"kind":"cancel","request_id":"q1"}',
        correlation_data=b"c1",
        content_type=CONTROL_CONTENT_TYPE,
    )
    visitor.region.ingress._on_message(cancel)
    visitor.region.ingress._on_message(good(correlation=b"c2", remaining_ms=5000))
    visitor.region.backends[0].release.set()

    await eventually(lambda: visitor.heard)
    assert [reply.correlation_data for reply in visitor.heard] == [b"c2"]
    assert parse_reply(visitor.heard[0]).outcome is Outcome.ANSWERED


async def test_what_is_not_done_when_a_gateway_stops_is_refused_and_not_forgotten(
    visitor: Visitor,
) -> None:
    visitor.region.backends[0].release = threading.Event()
    visitor.bus.publish(good(remaining_ms=5000))
    await eventually(lambda: visitor.region.ingress.queue_len == 1)

    await visitor.region.ingress.drain(0.01)

    await eventually(lambda: visitor.heard)
    assert visitor.heard[0].property(topics.ERROR_CODE) == "shutting_down"
    assert visitor.heard[0].correlation_data == b"c1"


async def test_an_output_that_the_wanted_form_cannot_carry_is_told_as_a_failure(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_more(*_: object) -> dict[str, np.ndarray]:
        return {
            "logits": np.array([SURE], np.float32),
            "embedding": np.full((1, 2), np.nan, np.float32),
        }

    monkeypatch.setattr(visitor.region.backends[0], "run", with_more)
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 0.5]}
    body = msgspec.json.encode({"id": "as-json", "inputs": [tensor]})

    reply = await visitor.ask(Message(TOPIC, body))

    assert reply.property(topics.ERROR_CODE) == "backend_failed"


async def test_a_cancel_takes_off_its_own_attempt_and_no_other(visitor: Visitor) -> None:
    visitor.region.backends[0].release = threading.Event()
    visitor.bus.publish(good(correlation=b"c1", remaining_ms=5000))
    visitor.bus.publish(good(correlation=b"c2", remaining_ms=5000))
    ignored = 'tierwise_regional_ignored_messages_total{kind="duplicate"}'
    await eventually(lambda: visitor.region.counted(ignored) == 1)

    cancel = b'{"kind":"cancel","request_id":"q1"}'
    visitor.bus.publish(
        Message(TOPIC, cancel, correlation_data=b"c1", content_type=CONTROL_CONTENT_TYPE)
    )
    visitor.region.backends[0].release.set()
    await eventually(lambda: visitor.heard)

    assert [message.correlation_data for message in visitor.heard] == [b"c2"]
    assert visitor.heard[0].property(topics.OUTCOME) == "answered"


async def test_bad_news_is_not_repeated_to_a_retry(visitor: Visitor) -> None:
    visitor.region.backends[0].is_broken = True
    failed = await visitor.ask(good(correlation=b"c1"))
    visitor.region.backends[0].is_broken = False

    retried = await visitor.ask(good(correlation=b"c2"))

    assert failed.property(topics.OUTCOME) == "failed"
    assert retried.property(topics.OUTCOME) == "answered"


async def test_control_messages_that_are_not_understood_are_counted(visitor: Visitor) -> None:
    for payload in (b"{", b'{"kind":"cancel","request_id":"unknown"}'):
        visitor.bus.publish(Message(TOPIC, payload, content_type=CONTROL_CONTENT_TYPE))
    undecodable = 'tierwise_regional_ignored_messages_total{kind="undecodable"}'

    await eventually(lambda: visitor.region.counted(undecodable) == 1)

    assert not visitor.heard


async def test_a_crash_in_the_flow_is_told_as_internal_and_hides_its_text(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(visitor.region.backends[0], "run", crash)

    reply = await visitor.ask(good())

    assert reply.property(topics.ERROR_CODE) == "internal"
    assert b"secret" not in reply.payload


async def test_an_answer_that_the_bus_cannot_take_is_counted(visitor: Visitor) -> None:
    visitor.region.backends[0].release = threading.Event()
    visitor.bus.publish(good(remaining_ms=5000))
    await eventually(lambda: visitor.region.ingress.queue_len == 1)
    visitor.broker.stop()

    visitor.region.backends[0].release.set()

    lost = "tierwise_regional_unsent_replies_total"
    await eventually(lambda: visitor.region.counted(lost) == 1)
    assert visitor.region.ingress.queue_len == 0


async def test_work_that_cannot_be_done_in_time_is_refused_with_when_to_come_again(
    visitor: Visitor,
) -> None:
    backend = visitor.region.backends[0]
    backend.delay_s = 0.1
    for number in range(5):
        await visitor.ask(good(f"warm{number}", b"w", remaining_ms=5000))

    refused = await visitor.ask(good("hopeless", b"h", remaining_ms=10))

    assert refused.property(topics.ERROR_CODE) == "too_late"
    assert int(refused.property(topics.RETRY_AFTER_MS)) > 10
    assert backend.num_runs == 5
    assert visitor.region.flow.needed_ms(request()) > 10
    assert visitor.region.flow.needed_ms(request(route=(Tier.CLOUD,))) == 0
