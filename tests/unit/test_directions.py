"""What a tier tells the next one to follow: read back as it was, or refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import MalformedBodyError
from runtime.exchange.directions import (
    earlier_text,
    parse_earlier,
    parse_gear,
    parse_route,
    route_text,
)
from runtime.exchange.wire import parse_request, request_message
from runtime.messages import InferenceRequest, Tier

tiers = st.lists(st.sampled_from(Tier), unique=True).map(
    lambda chosen: tuple(sorted(chosen, key=lambda tier: tier.height))
)
labels = st.none() | st.integers(0, 2**31 - 1)
gears = st.from_regex(
    r"[0-9a-f]{12}/[A-Za-z0-9][A-Za-z0-9._-]{0,127}(\.safer-[0-9])?", fullmatch=True
)
GEAR = "0123456789ab/g"


@given(tiers, gears, tiers, st.lists(labels, min_size=3, max_size=3))
def test_directions_come_back_as_they_were_sent(
    route: tuple[Tier, ...], gear: str, below: tuple[Tier, ...], said: list[int | None]
) -> None:
    earlier = tuple(zip(below, said, strict=False))
    sent = InferenceRequest(
        request_id="q",
        model_name="m",
        inputs={"x": np.zeros((1, 2), np.float32)},
        remaining_ms=10,
        route=route,
        gear=gear,
        earlier=earlier,
    )

    message = request_message(sent, topic="t", response_topic="r", correlation=b"", remaining_ms=10)
    read, _ = parse_request(message, default_model="m", remaining_ms=10, max_bytes=1000)

    assert (read.route, read.gear, read.earlier) == (route, gear, earlier)


def test_without_directions_nothing_is_sent() -> None:
    assert (route_text(()), earlier_text(())) == ("", "")
    assert (parse_route(""), parse_gear(""), parse_earlier("")) == ((), "", ())


@given(st.text(max_size=200), st.sampled_from((parse_route, parse_gear, parse_earlier)))
def test_no_text_makes_reading_directions_raise_anything_else(
    text: str, parse: Callable[[str], object]
) -> None:
    with contextlib.suppress(MalformedBodyError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "moon",
        "cloud,regional",
        "cloud,cloud",
        ",",
        "cloud,",
        " cloud",
        "cloud," * 100,
        "\udcff",
        "CLOUD",
    ],
)
def test_a_route_that_leads_nowhere_is_refused(text: str) -> None:
    with pytest.raises(MalformedBodyError):
        parse_route(text)


@pytest.mark.parametrize(
    "text",
    [
        "g",
        "0123456789ab/",
        "0123456789ab/../../etc",
        "0123456789AB/g",
        f"{GEAR}\n",
        "0123456789ab/" + "g" * 129,
        "\udcff",
    ],
)
def test_a_gear_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedBodyError):
        parse_gear(text)


@pytest.mark.parametrize(
    "text",
    [
        "edge",
        "edge=",
        "edge=-1",
        "edge=1.5",
        "edge=²",
        "edge=2147483648",
        "edge=" + "9" * 200,
        "edge=1,edge=2",
        "regional=1,edge=2",
        "moon=1",
        "edge=1,",
        "edge=1=2",
        "edge=\udcff",
    ],
)
def test_an_earlier_answer_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MalformedBodyError):
        parse_earlier(text)
