from __future__ import annotations

import pytest

from runtime.adapters.message_rules import check_filter, check_message
from runtime.ports import Message

pytestmark = pytest.mark.unit

TOO_LONG = "ü" * 32_768


@pytest.mark.parametrize(
    "message",
    [
        Message(""),
        Message("a/+"),
        Message("a/#"),
        Message("a\0b"),
        Message(TOO_LONG),
        Message("\ud800"),
        Message("a", qos=2),
        Message("a", qos=-1),
        Message("a", expiry_s=-1),
        Message("a", expiry_s=2**32),
        Message("a", response_topic="b\0"),
        Message("a", content_type=TOO_LONG),
        Message("a", correlation_data=bytes(65_536)),
        Message("a", user=(("k", TOO_LONG),)),
        Message("a", user=(("\0", "v"),)),
    ],
)
def test_a_message_that_would_end_the_connection_is_refused(message: Message) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_message(message)


def test_the_largest_values_are_taken() -> None:
    check_message(
        Message(
            "a" * 65_535,
            qos=1,
            expiry_s=2**32 - 1,
            correlation_data=bytes(65_535),
            user=(("", ""),),
        )
    )


@pytest.mark.parametrize(
    "topic_filter", ["#", "+", "a/+/b", "a/#", "/", "a//b", "$share/g/a/#", "$share/g/+", "$SYS/#"]
)
def test_a_wellformed_filter_is_taken(topic_filter: str) -> None:
    check_filter(topic_filter, 0)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "",
        "a/#/b",
        "a+",
        "a/b#",
        "#a",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
    ],
)
def test_a_malformed_filter_is_refused(topic_filter: str) -> None:
    with pytest.raises(ValueError, match=r"filter|group|wildcard"):
        check_filter(topic_filter, 0)


@pytest.mark.parametrize("qos", [-1, 2])
def test_a_subscription_at_another_qos_is_refused(qos: int) -> None:
    with pytest.raises(ValueError, match="QoS"):
        check_filter("a", qos)
