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


NO_BOXES: Tensors = {
    "boxes": np.zeros((1, 0, 4), np.float32),
    "scores": np.zeros((1, 0), np.float32),
}
ONE_BOX: Tensors = {
    "boxes": np.array([[[0, 0, 1, 1]]], np.float32),
    "scores": np.array([[0.9]], np.float32),
    "count": np.array([[1.0]], np.float32),
}
BOX = '{"label": "cat", "score": 0.9, "box": [0, 0, 1, 1]}'


@pytest.mark.parametrize("outcome", ["answered", "degraded"])
def test_a_detector_that_found_nothing_has_answered(outcome: str) -> None:
    answer = parse_reply(reply(NO_BOXES, outcome=outcome, result='{"boxes": []}'))

    assert answer.has_answer
    assert answer.result == '{"boxes": []}'
    assert answer.outputs["boxes"].shape == (1, 0, 4)


def test_boxes_come_with_what_they_say() -> None:
    answer = parse_reply(reply(ONE_BOX, result=f'{{"boxes": [{BOX}], "new": 1}}'))

    assert answer.result.startswith('{"boxes"')


def test_a_label_that_is_called_boxes_is_none_of_them() -> None:
    said = '{"labels": {"boxes": 0.9}}'

    assert parse_reply(reply(result=said)).result == said


@pytest.mark.parametrize(
    ("outputs", "result"),
    [
        (NO_BOXES, None),
        (NO_BOXES, ""),
        (NO_BOXES, 7),
        (NO_BOXES, '{"labels": {}}'),
        (NO_BOXES, f'{{"boxes": [{BOX}]}}'),
        (NO_BOXES, '{"boxes": []}' + " " * (1 << 20)),
        ({"logits": np.zeros((0, 2), np.float32)}, '{"boxes": []}'),
        ({"boxes": np.zeros((2, 0, 4), np.float32)}, '{"boxes": []}'),
        (ONE_BOX, '{"boxes": []}'),
        (ONE_BOX, f'{{"boxes": [{BOX}, {BOX}]}}'),
        (ONE_BOX, f'{{"boxes": [{", ".join([BOX] * 1001)}]}}'),
        (ONE_BOX, '{"boxes": 1}'),
        (ONE_BOX, '{"boxes": [{"label": "cat", "score": 7, "box": [0, 0, 1, 1]}]}'),
        (ONE_BOX, '{"boxes": [{"label": "cat", "score": 0.9, "box": [1, 0, 0, 1]}]}'),
        (ONE_BOX, '{"boxes": [{"label": "cat", "score": 0.9, "box": [0, 0, 1]}]}'),
        (ONE_BOX, '{"boxes": [{"label": "cat", "score": 0.9, "box": [0, 0, 1e400, 1]}]}'),
        (ONE_BOX, '{"boxes": ' + "[" * 100_000),
        (ONE_BOX, '{"boxes": ['),
    ],
    ids=[str(number) for number in range(18)],
)
def test_what_says_one_thing_in_words_and_another_in_tensors_is_refused(
    outputs: Tensors, result: object
) -> None:
    changes = {} if result is None else {"result": result}

    with pytest.raises(MalformedBodyError, match="reply"):
        parse_reply(reply(outputs, **changes))


def test_an_enormous_result_is_not_passed_on() -> None:
    assert parse_reply(reply(result="x" * ((1 << 20) + 1))).result == ""
