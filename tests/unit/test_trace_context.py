"""Trace context as W3C has it, and the drawing of traces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.tracing import (
    TraceContext,
    context_text,
    is_drawn,
    new_context,
    parse_context,
    sampled_trace_id,
    span_id_of,
)

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
# 192 random bits.
IDS = st.integers(0, 2**192 - 1)


def test_a_context_is_read_as_w3c_writes_it() -> None:
    assert parse_context(f"00-{TRACE_ID}-{SPAN_ID}-01") == TraceContext(
        TRACE_ID, SPAN_ID, is_sampled=True
    )


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)]
)
def test_of_the_flags_the_last_bit_says_whether_it_is_recorded(
    flags: str, is_sampled: bool
) -> None:
    context = parse_context(f"cc-{TRACE_ID}-{SPAN_ID}-{flags}")

    assert context is not None
    assert context.is_sampled is is_sampled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-01-more",
        f"00-{TRACE_ID}-{SPAN_ID}-01\n",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}٣-{SPAN_ID}-01",
    ],
)
def test_what_is_malformed_is_no_context(text: str) -> None:
    assert parse_context(text) is None
    assert sampled_trace_id(text) == ""


@given(IDS, st.floats(0, 1))
def test_a_new_context_survives_its_text(random_id: int, share: float) -> None:
    context = new_context(random_id, share)

    assert parse_context(context_text(context)) == context
    assert span_id_of(random_id) == context.span_id
    assert sampled_trace_id(context_text(context)) == (
        context.trace_id if context.is_sampled else ""
    )


@given(IDS, st.floats(0, 1), st.floats(0, 1))
def test_whoever_records_more_records_what_others_do(
    random_id: int, share: float, other: float
) -> None:
    trace_id = new_context(random_id, 0).trace_id
    fewer, more = sorted((share, other))

    assert is_drawn(trace_id, fewer) <= is_drawn(trace_id, more)
    assert is_drawn(trace_id, 1)
    assert not is_drawn(trace_id, 0)


def test_the_drawn_share_is_the_share() -> None:
    ids = [f"{0:018x}{number << 42:014x}" for number in range(1 << 14)]

    assert sum(is_drawn(one, 0.25) for one in ids) == 1 << 12
