"""Replies of a tier above that is broken or hostile: read as what they are, or refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime import topics
from runtime.codec import encode_response
from runtime.errors import MalformedBodyError
from runtime.exchange.wire import parse_reply, parse_traceparent
from runtime.messages import Tensors
from runtime.ports import Message

LOGITS = np.array([[3.0, 1.0]], np.float32)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def reply(outputs: Tensors | None = None, **changes: Any) -> Message:
    said = {"outcome": "answered", "reason": "confident", "tier": "cloud"} | changes
    payload, length = encode_response(
        {"logits": LOGITS} if outputs is None else outputs, model_name="m", parameters=said
    )
    user = ((topics.HEADER_LENGTH, str(length)),) if length is not None else ()
    return Message("t", payload, user=user)


@pytest.mark.parametrize("outcome", ["answered", "degraded"])
@pytest.mark.parametrize(
    "array",
    [None, np.zeros((0, 2), np.float32), np.array([[np.nan, 1]], np.float32)],
    ids=["none", "empty", "nan"],
)
def test_a_reply_that_says_it_answers_and_does_not_is_refused(
    outcome: str, array: npt.NDArray[np.float32] | None
) -> None:
    outputs: Tensors = {} if array is None else {"logits": array}

    with pytest.raises(MalformedBodyError):
        parse_reply(reply(outputs, outcome=outcome))


def test_an_answer_of_nobody_is_refused_and_an_abstention_needs_no_outputs() -> None:
    with pytest.raises(MalformedBodyError):
        parse_reply(reply(tier=None))

    assert not parse_reply(reply({}, outcome="abstained", tier=None)).has_answer


@pytest.mark.parametrize(
    "provenance", ["[" * 100_000, '[{"new":' + "[" * 100_000, "{"], ids=["deep", "deeper", "cut"]
)
def test_a_provenance_that_cannot_be_read_is_refused(provenance: str) -> None:
    with pytest.raises(MalformedBodyError):
        parse_reply(reply(provenance=provenance))


@pytest.mark.parametrize("value", [-1, 2**31, 10**40, True, "3", 1.5])
def test_a_label_that_is_none_is_left_out(value: object) -> None:
    assert parse_reply(reply(label=value)).label is None


@pytest.mark.parametrize("value", [-0.1, 1.1, 10**400, True, "sure"])
def test_a_confidence_that_is_no_probability_is_left_out(value: object) -> None:
    assert parse_reply(reply(confidence=value)).confidence is None


@pytest.mark.parametrize("text", ["", "yes", TRACE[:-1], TRACE + "\n", "\udcff", "x" * 70_000])
def test_a_trace_context_that_is_malformed_is_ignored(text: str) -> None:
    assert parse_traceparent(text) == ""
    assert parse_traceparent(TRACE) == TRACE
