"""Items of an outbox as MQTT messages, and the words that are said about them."""

from __future__ import annotations

import hashlib
import re
import uuid

import msgspec

from runtime import topics
from runtime.codec import RequestBody, encode_response
from runtime.errors import MalformedBodyError, RequestError
from runtime.exchange.wire import CONTROL_CONTENT_TYPE, MAX_DIGITS
from runtime.messages import Answer, ControlMessage, ItemKind, Said, encode_control
from runtime.ports import Clock, Message, OutboxItem

JSON_CONTENT_TYPE = "application/json"
# Outputs that are larger do not come with a correction; its label does.
MAX_OUTPUT_BYTES = 65_536
# What nobody has fetched by then is said again when the item is.
_WORD_EXPIRY_S = 60
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
_ORIGIN = re.compile(r"[0-9A-Za-z._-]{1,64}/[0-9A-Za-z._-]{1,64}")
_AGE_DIGITS = 15


class _Outputs(msgspec.Struct):
    outputs: tuple[dict[str, object], ...] = ()


def new_id() -> str:
    """An id that no other item has."""
    return uuid.uuid4().hex


def json_item(kind: ItemKind, value: object, clock: Clock) -> OutboxItem:
    """Something to be kept above, as JSON."""
    return OutboxItem(new_id(), kind, clock.wall_s(), msgspec.json.encode(value))


def up_message(item: OutboxItem, topic: str, wall_s: float) -> Message:
    """An item on its way up; its age is told, because clocks differ."""
    is_escalation = item.kind is ItemKind.ESCALATION
    age_ms = max(0.0, wall_s - item.created_s) * 1000
    origin = ((topics.ORIGIN, item.origin),) if item.origin else ()
    return Message(
        topic=topic,
        payload=item.body,
        qos=1,
        content_type=topics.CONTENT_TYPE if is_escalation else JSON_CONTENT_TYPE,
        user=(
            (topics.ITEM, item.id),
            (topics.KIND, item.kind.value),
            (topics.ATTEMPT, str(min(item.attempts, 10**MAX_DIGITS - 1))),
            (topics.AGE_MS, f"{age_ms:.0f}"),
            *origin,
            *item.properties,
        ),
    )


def parse_item(
    message: Message, *, origin: str, trusts_origin: bool, wall_s: float, max_bytes: int
) -> OutboxItem:
    """An item that arrived from below, under the id by which it is known from here on.

    ``origin`` is the sender; with ``trusts_origin`` the sender may speak for others.

    Raises:
        RequestError: it is none, or too large.
    """
    item_id, said = message.property(topics.ITEM), message.property(topics.ORIGIN)
    sender = origin.partition("/")[2]
    if not _ID.fullmatch(item_id):
        raise MalformedBodyError("an item has an id of 1 to 64 letters, digits, '.', '_' or '-'")
    try:
        kind = ItemKind(message.property(topics.KIND))
    except ValueError:
        raise MalformedBodyError("an item of an unknown kind") from None
    if kind is ItemKind.CORRECTION:
        raise MalformedBodyError("a correction does not climb")
    if len(message.payload) > max_bytes:
        raise MalformedBodyError(f"an item of {len(message.payload)} bytes is too large")
    if kind is not ItemKind.ESCALATION:
        _check_json(message.payload)
    if said and trusts_origin:
        if not _ORIGIN.fullmatch(said):
            raise MalformedBodyError("an origin is region/site")
        origin = said
    else:
        # Two agents may choose the same id.
        item_id = derived_id(origin, item_id)
    age = message.property(topics.AGE_MS, "0")
    age_ms = float(age) if age.isascii() and age.isdigit() and len(age) < _AGE_DIGITS else 0.0
    return OutboxItem(
        item_id, kind, wall_s - age_ms / 1000, message.payload, origin=origin, sender=sender
    )


def derived_id(*parts: str) -> str:
    """The same id for the same parts, wherever it is made."""
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def control(message: ControlMessage, topic: str) -> Message:
    """A word about items, or a correction, at its topic."""
    return Message(
        topic=topic,
        payload=encode_control(message),
        qos=1,
        content_type=CONTROL_CONTENT_TYPE,
        expiry_s=_WORD_EXPIRY_S,
    )


def said_of(answer: Answer, *, with_outputs: bool = True) -> Said:
    """An answer as a correction tells it."""
    return Said(
        outcome=answer.outcome,
        reason=answer.reason,
        tier=answer.tier,
        label=answer.label,
        label_name=answer.label_name,
        confidence=answer.confidence,
        guarantee=answer.guarantee,
        model_name=answer.model_name,
        model_version=answer.model_version,
        hops=answer.hops,
        outputs=_outputs_of(answer) if with_outputs else (),
        result=answer.result if len(answer.result) <= MAX_OUTPUT_BYTES else "",
    )


def _outputs_of(answer: Answer) -> tuple[dict[str, object], ...]:
    if sum(array.nbytes for array in answer.outputs.values()) > MAX_OUTPUT_BYTES:
        return ()
    as_json = RequestBody(inputs={}, binary_outputs=frozenset())
    try:
        body, _ = encode_response(answer.outputs, model_name=answer.model_name, request=as_json)
    except RequestError:
        # A number that JSON cannot carry.
        return ()
    return msgspec.json.decode(body, type=_Outputs).outputs


def _check_json(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedBodyError("an item is a JSON object") from None
