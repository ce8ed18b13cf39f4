"""Items on the wire: read strictly, known by one id from then on, told with their age."""

from __future__ import annotations

import numpy as np
import pytest

from fakes.clock import FakeClock
from runtime import topics
from runtime.errors import MalformedBodyError
from runtime.exchange.items import MAX_OUTPUT_BYTES, json_item, parse_item, said_of, up_message
from runtime.messages import Answer, ItemKind, Outcome, Reason, Tier
from runtime.ports import Message, OutboxItem

WALL_S = 1_800_000_000.0


def message(body: bytes = b"{}", **properties: str) -> Message:
    said = {"item": "i1", "kind": "feedback", **properties}
    user = tuple((name.replace("_", "-"), value) for name, value in said.items())
    return Message("up", body, user=user)


def parsed(said: Message, *, trusts_origin: bool = False, origin: str = "r/a") -> OutboxItem:
    return parse_item(
        said, origin=origin, trusts_origin=trusts_origin, wall_s=WALL_S, max_bytes=100
    )


def test_an_item_comes_back_as_it_was_sent_with_its_age() -> None:
    clock = FakeClock(wall_s=WALL_S - 7)
    item = json_item(ItemKind.FEEDBACK, {"label": 1}, clock)

    read = parsed(up_message(item, topics.up("r", "a"), WALL_S))

    assert (read.kind, read.body, read.origin) == (item.kind, item.body, "r/a")
    assert read.created_s == item.created_s


def test_two_agents_may_choose_the_same_id() -> None:
    assert parsed(message(), origin="r/a").id != parsed(message(), origin="r/b").id
    assert parsed(message(), origin="r/a").id == parsed(message(), origin="r/a").id


def test_only_a_gateway_speaks_for_others() -> None:
    said = message(origin="plant/camera-1")

    assert parsed(said).origin == "r/a"
    assert parsed(said, trusts_origin=True).origin == "plant/camera-1"
    assert parsed(said, trusts_origin=True).id == "i1"


@pytest.mark.parametrize(
    "said",
    [
        message(item=""),
        message(item="a b"),
        message(item="x" * 65),
        message(kind="unheard-of"),
        message(kind="correction"),
        message(b"x" * 101),
        message(b"[]"),
        message(b"\xff"),
        message(b"[" * 100),
        message(origin="no region"),
        message(origin="a/b/c"),
    ],
)
def test_what_is_no_item_is_refused(said: Message) -> None:
    with pytest.raises(MalformedBodyError):
        parsed(said, trusts_origin=True)


@pytest.mark.parametrize("age", ["", "-5", "x", "9" * 20])
def test_an_age_that_is_none_is_taken_for_none(age: str) -> None:
    assert parsed(message(age_ms=age)).created_s == WALL_S


def test_the_topic_says_whose_outbox_it_is() -> None:
    assert topics.agent_of_up(topics.up("r", "a")) == "a"
    assert topics.agent_of_up(topics.agent_replies("r", "a")) == ""
    assert topics.matches(topics.up_shared("r"), topics.up("r", "a"))


def test_outputs_come_with_a_correction_where_json_can_carry_them() -> None:
    def answer(array: np.ndarray) -> Answer:
        outputs = {"y": array}
        return Answer("q", Outcome.ANSWERED, Reason.TOP_TIER, (), Tier.CLOUD, outputs=outputs)

    said = said_of(answer(np.array([[1.5]], np.float32)))

    assert said.outputs[0]["data"] == [1.5]
    assert said_of(answer(np.array([np.nan], np.float32))).outputs == ()
    assert said_of(answer(np.zeros(MAX_OUTPUT_BYTES, np.float32))).outputs == ()


def test_what_was_found_comes_home_with_a_correction_and_not_without_bound() -> None:
    found, enormous = (
        Answer("q", Outcome.ANSWERED, Reason.CONFIDENT, (), Tier.CLOUD, result=result)
        for result in ('{"boxes": []}', " " * (MAX_OUTPUT_BYTES + 1))
    )

    assert said_of(found).result == '{"boxes": []}'
    assert said_of(enormous).result == ""
