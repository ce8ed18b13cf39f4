"""The ``beliefs`` of a request: read back as they were, or refused."""

from __future__ import annotations

import base64
import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.tiers import request
from runtime.averages import MAX_CLASSES
from runtime.core.beliefs import WHOLE, believed
from runtime.errors import MalformedBodyError
from runtime.exchange.directions import MAX_BELIEFS_CHARACTERS, beliefs_text, parse_beliefs
from runtime.exchange.wire import parse_request, request_message
from runtime.messages import Tier


def encoded(*shares: int) -> str:
    return base64.urlsafe_b64encode(np.asarray(shares, "<u2").tobytes()).decode().rstrip("=")


@st.composite
def shares(draw: st.DrawFn) -> bytes:
    weights = draw(st.lists(st.integers(0, 100), min_size=2, max_size=64).filter(any))
    belief = believed(np.asarray(weights, np.float64))
    assert belief is not None
    return belief.tobytes()


beliefs = st.dictionaries(st.sampled_from(Tier), shares()).map(
    lambda found: tuple(sorted(found.items(), key=lambda one: one[0].height))
)
HALF = (WHOLE // 2, WHOLE - WHOLE // 2)


@given(beliefs)
def test_beliefs_come_back_as_they_were_sent(told: tuple[tuple[Tier, bytes], ...]) -> None:
    sent = request(beliefs=told)

    message = request_message(sent, topic="t", response_topic="r", correlation=b"", remaining_ms=10)
    read, _ = parse_request(message, default_model="m", remaining_ms=10, max_bytes=1000)

    assert read.beliefs == told


def test_without_beliefs_nothing_is_sent() -> None:
    assert (beliefs_text(()), parse_beliefs("")) == ("", ())


def test_all_that_five_tiers_can_say_is_short_enough() -> None:
    longest = max(map(len, (*Tier, "regional-2")))

    assert 5 * (longest + 2 + len(encoded(*[0] * MAX_CLASSES))) <= MAX_BELIEFS_CHARACTERS


@given(st.text(max_size=300) | st.binary(max_size=90).map(lambda one: f"edge={one.hex()}"))
def test_no_text_makes_reading_beliefs_raise_anything_else(text: str) -> None:
    with contextlib.suppress(MalformedBodyError):
        parse_beliefs(text)


@pytest.mark.parametrize(
    "text",
    [
        "edge",
        "edge=",
        "moon=" + encoded(*HALF),
        f"edge={encoded(*HALF)},",
        f"edge={encoded(*HALF)},edge={encoded(*HALF)}",
        f"cloud={encoded(*HALF)},edge={encoded(*HALF)}",
        "edge=" + encoded(WHOLE),
        "edge=" + encoded(0, 0),
        "edge=" + encoded(WHOLE, WHOLE),
        "edge=" + encoded(WHOLE, *[0] * MAX_CLASSES),
        f"edge={encoded(*HALF)}A",
        f"edge={encoded(*HALF)[:-1]}*",
        f" edge={encoded(*HALF)}",
        f"edge={encoded(*HALF)}\n",
        f"edge={encoded(*HALF)}=",
        "edge=+38AgA",
        "edge=A",
        "edge=AA",
        "edge=\udcff",
        "edge=²²²²",
        "edge=" + "A" * MAX_BELIEFS_CHARACTERS,
    ],
)
def test_beliefs_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(MalformedBodyError):
        parse_beliefs(text)
