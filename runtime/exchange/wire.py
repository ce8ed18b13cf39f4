"""Requests and answers as MQTT messages, and answers as Open Inference Protocol parameters.

The one place that knows which value travels in which property; HTTP uses the same parameter names.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import msgspec

from runtime import topics
from runtime.codec import (
    Parameters,
    RequestBody,
    decode_request,
    decode_response,
    encode_error,
    encode_request,
    encode_response,
    is_error_body,
    parse_header_length,
)
from runtime.core.tracing import parse_context
from runtime.deadline import expiry_s
from runtime.errors import MalformedBodyError, TierwiseError, describe
from runtime.exchange.directions import (
    MAX_LABEL,
    beliefs_text,
    earlier_text,
    parse_beliefs,
    parse_digest,
    parse_earlier,
    parse_gear,
    parse_route,
    route_text,
)
from runtime.exchange.results import check_answer, parse_result
from runtime.messages import (
    Answer,
    Cancel,
    Guarantee,
    Hop,
    InferenceRequest,
    Outcome,
    Reason,
    Residency,
    Tier,
    encode_control,
)
from runtime.ports import Message

CONTROL_CONTENT_TYPE = "application/vnd.tierwise.control+json"
MAX_ID_CHARACTERS = 128
MAX_HOPS = 8
_REFUSALS = (
    "too_late", "overloaded", "refused", "payload_too_large", "stopped", "embedding_mismatch"
)  # fmt: skip
# Of a count in a property.
MAX_DIGITS = 6
# An agent that comes back is not flooded with answers that nobody waits for.
REPLY_EXPIRY_S = 1
_Choice = TypeVar("_Choice", Outcome, Reason, Residency, Tier, Guarantee)
_hops = msgspec.json.Decoder(tuple[Hop, ...])


def request_message(
    request: InferenceRequest,
    *,
    topic: str,
    response_topic: str,
    correlation: bytes,
    remaining_ms: float,
) -> Message:
    """A request on its way up, with what is left of its budget."""
    body, header_length = encode_request(
        request.inputs, request_id=request.request_id, outputs=request.outputs
    )
    user = [
        (topics.REMAINING_MS, f"{remaining_ms:.3f}"),
        (topics.HEADER_LENGTH, str(header_length)),
        (topics.REQUEST_ID, request.request_id),
        (topics.ATTEMPT, str(request.attempt)),
        (topics.HOP, str(request.hop)),
        (topics.MODEL, request.model_name),
        (topics.RESIDENCY, request.residency.value),
    ]
    optional = (
        (topics.MODEL_VERSION, request.model_version),
        (topics.PRIORITY, str(request.priority) if request.priority else ""),
        (topics.TRACEPARENT, request.traceparent),
        (topics.ROUTE, route_text(request.route)),
        (topics.GEAR, request.gear),
        (topics.EARLIER, earlier_text(request.earlier)),
        (topics.BELIEFS, beliefs_text(request.beliefs)),
        (topics.AUDIT, "1" if request.audit else ""),
        (topics.STANDS, "1" if request.stands else ""),
        (topics.FORWARDED_BY, request.forwarded_by),
    )
    user.extend((name, value) for name, value in optional if value)
    return Message(
        topic=topic,
        payload=body,
        response_topic=response_topic,
        correlation_data=correlation,
        content_type=topics.CONTENT_TYPE,
        expiry_s=expiry_s(remaining_ms),
        user=tuple(user),
    )


def cancel_message(request_id: str, *, topic: str, correlation: bytes) -> Message:
    """Says that nobody waits for this request any more; goes to the request's own topic."""
    return Message(
        topic=topic,
        payload=encode_control(Cancel(request_id)),
        correlation_data=correlation,
        content_type=CONTROL_CONTENT_TYPE,
        expiry_s=1,
    )


def parse_request(
    message: Message, *, default_model: str, remaining_ms: float, max_bytes: int
) -> tuple[InferenceRequest, RequestBody]:
    """A request that arrived, and its body for what the reply must look like.

    Raises:
        RequestError: the body or a property is not usable.
    """
    header_length = parse_header_length(
        message.property(topics.HEADER_LENGTH), len(message.payload)
    )
    body = decode_request(message.payload, header_length, max_bytes=max_bytes)
    request_id = message.property(topics.REQUEST_ID) or body.id or message.correlation_data.hex()
    return InferenceRequest(
        request_id=check_request_id(request_id),
        model_name=message.property(topics.MODEL) or default_model,
        model_version=message.property(topics.MODEL_VERSION),
        inputs=body.inputs,
        outputs=body.outputs,
        remaining_ms=remaining_ms,
        residency=_choice(Residency, message.property(topics.RESIDENCY, "cloud"), "residency"),
        priority=_count(message.property(topics.PRIORITY, "0"), topics.PRIORITY),
        hop=_count(message.property(topics.HOP, "0"), topics.HOP),
        attempt=_count(message.property(topics.ATTEMPT, "1"), topics.ATTEMPT),
        traceparent=parse_traceparent(message.property(topics.TRACEPARENT)),
        route=parse_route(message.property(topics.ROUTE)),
        gear=parse_gear(message.property(topics.GEAR)),
        earlier=parse_earlier(message.property(topics.EARLIER)),
        beliefs=parse_beliefs(message.property(topics.BELIEFS)),
        audit=_flag(message.property(topics.AUDIT), topics.AUDIT),
        stands=_flag(message.property(topics.STANDS), topics.STANDS),
        forwarded_by=parse_digest(message.property(topics.FORWARDED_BY)),
    ), body


def check_request_id(request_id: str) -> str:
    """The id, when it has 1 to 128 printable characters.

    Raises:
        MalformedBodyError: it has not.
    """
    if not 0 < len(request_id) <= MAX_ID_CHARACTERS or not request_id.isprintable():
        raise MalformedBodyError("a request id has 1 to 128 printable characters")
    return request_id


def check_priority(value: object) -> int:
    """A priority from a request parameter.

    Raises:
        MalformedBodyError: not a whole number from 0 to 999999.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**MAX_DIGITS:
        raise MalformedBodyError(f"{topics.PRIORITY} is no small number: {str(value)[:40]!r}")
    return value


def parse_traceparent(text: str) -> str:
    """The trace context; empty where it is malformed, which W3C has receivers ignore."""
    return text if parse_context(text) else ""


def parse_residency(value: object) -> Residency:
    """A residency from a request parameter.

    Raises:
        MalformedBodyError: not one of device, region and cloud.
    """
    return _choice(Residency, value, "residency")


def _choice(kind: type[_Choice], value: object, name: str) -> _Choice:
    try:
        return kind(str(value))
    except ValueError:
        known = ", ".join(kind)
        raise MalformedBodyError(f"{name} is one of {known}; not {str(value)[:40]!r}") from None


def _count(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise MalformedBodyError(f"{name} is no small number: {text[:40]!r}")
    return int(text)


def _flag(text: str, name: str) -> bool:
    if text not in ("", "1"):
        raise MalformedBodyError(f"{name} is 1 or absent; not {text[:40]!r}")
    return bool(text)


def answer_parameters(answer: Answer) -> Parameters:
    """What an answer says about itself, as parameters of a response: plain values only."""
    values: dict[str, Any] = {
        "outcome": answer.outcome.value,
        "reason": answer.reason.value,
        "guarantee": answer.guarantee.value,
        "tier": None if answer.tier is None else answer.tier.value,
        "label": answer.label,
        "label_name": answer.label_name or None,
        "confidence": answer.confidence,
        "error_code": answer.error_code or None,
        "notice": answer.notice or None,
        "result": answer.result or None,
        "latency_ms": round(answer.latency_ms, 3),
        "provenance": msgspec.json.encode(answer.hops).decode(),
    }
    return {name: value for name, value in values.items() if value is not None}


def reply_message(
    answer: Answer,
    *,
    topic: str,
    correlation: bytes,
    body: RequestBody | None,
    queue_len: int,
) -> Message:
    """An answer on its way down."""
    last = answer.hops[-1] if answer.hops else None
    payload, header_length = encode_response(
        answer.outputs,
        model_name=answer.model_name,
        model_version=answer.model_version,
        request_id=answer.request_id,
        parameters=answer_parameters(answer),
        request=body,
    )
    user = [
        (topics.REQUEST_ID, answer.request_id),
        (topics.OUTCOME, answer.outcome.value),
        (topics.SERVICE_US, str(last.service_us if last else 0)),
        (topics.QUEUE_US, str(last.queue_us if last else 0)),
        (topics.QUEUE_LEN, str(queue_len)),
    ]
    if header_length is not None:
        user.append((topics.HEADER_LENGTH, str(header_length)))
    if answer.error_code:
        user.append((topics.ERROR_CODE, answer.error_code))
    return Message(
        topic=topic,
        payload=payload,
        correlation_data=correlation,
        content_type=topics.CONTENT_TYPE,
        expiry_s=REPLY_EXPIRY_S,
        user=tuple(user),
    )


def error_message(
    error: TierwiseError, *, topic: str, correlation: bytes, request_id: str, queue_len: int
) -> Message:
    """A refusal or failure on its way down."""
    return Message(
        topic=topic,
        payload=encode_error(describe(error)),
        correlation_data=correlation,
        content_type=topics.CONTENT_TYPE,
        expiry_s=1,
        user=(
            (topics.REQUEST_ID, request_id),
            (topics.OUTCOME, Outcome.FAILED.value),
            (topics.ERROR_CODE, error.code),
            (topics.QUEUE_LEN, str(queue_len)),
            *_retry_after(error),
        ),
    )


def _retry_after(error: TierwiseError) -> tuple[tuple[str, str], ...]:
    retry_after_ms = getattr(error, "retry_after_ms", 0.0)
    return ((topics.RETRY_AFTER_MS, f"{retry_after_ms:.0f}"),) if retry_after_ms else ()


def parse_reply(message: Message) -> Answer:
    """The answer in a reply from the tier above; of an error body, one that says ``failed``.

    Raises:
        MalformedBodyError: the reply cannot be read, or says that it answers and does not.
        InvalidTensorError: its tensors cannot be read.
    """
    request_id = message.property(topics.REQUEST_ID)
    if is_error_body(message.payload):
        error_code = message.property(topics.ERROR_CODE, "internal")
        return Answer(
            request_id=request_id,
            outcome=Outcome.FAILED,
            reason=reason_of_error(error_code),
            hops=(),
            error_code=error_code,
        )
    header_length = parse_header_length(
        message.property(topics.HEADER_LENGTH), len(message.payload)
    )
    body = decode_response(message.payload, header_length)
    said = body.parameters
    tier = said.get("tier")
    outcome = _choice(Outcome, said.get("outcome"), "outcome")
    reason = _choice(Reason, said.get("reason"), "reason")
    if outcome is Outcome.FAILED:
        # What is "local" or "here" above is "upstream" to whoever asked.
        is_late = reason is Reason.DEADLINE
        reason = Reason.UPSTREAM_TIMEOUT if is_late else Reason.UPSTREAM_FAILED
    result = parse_result(said.get("result", ""))
    if outcome in (Outcome.ANSWERED, Outcome.DEGRADED):
        check_answer(body.outputs, tier, result)
    return Answer(
        request_id=request_id or body.id,
        outcome=outcome,
        reason=reason,
        guarantee=_choice(Guarantee, said.get("guarantee", "none"), "guarantee"),
        tier=None if tier is None else _choice(Tier, tier, "tier"),
        model_name=body.model_name,
        model_version=body.model_version,
        label=_label(said.get("label")),
        label_name=str(said.get("label_name", "")),
        confidence=_probability(said.get("confidence")),
        error_code=str(said.get("error_code", "")),
        outputs=body.outputs,
        latency_ms=_milliseconds(said.get("latency_ms")),
        hops=_parse_hops(said.get("provenance", "[]")),
        notice=str(said.get("notice", ""))[:1024],
        result=result,
    )


def parse_queue_len(message: Message) -> int | None:
    """How many requests a gateway that replied has in progress; None when it does not say."""
    return _count_said(message, topics.QUEUE_LEN)


def parse_retry_after_ms(message: Message) -> int:
    """For how long a gateway that refused asks to be left alone; 0 when it does not say."""
    return _count_said(message, topics.RETRY_AFTER_MS) or 0


def _count_said(message: Message, name: str) -> int | None:
    text = message.property(name)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def reason_of_error(code: str) -> Reason:
    """What an error of the tier above means to the tier that asked."""
    if code in _REFUSALS:
        return Reason.UPSTREAM_REFUSED
    return Reason.UPSTREAM_FAILED


def _label(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < MAX_LABEL else None


def _probability(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= 1 else None


def _milliseconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0.0
    return float(value) if 0 <= value < math.inf else 0.0


def _parse_hops(text: object) -> tuple[Hop, ...]:
    try:
        hops = _hops.decode(str(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedBodyError("the provenance of the reply cannot be read") from None
    return hops[:MAX_HOPS]
