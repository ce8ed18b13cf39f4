"""Prints the AsyncAPI 3.0 description of what goes over MQTT, from topics and messages.

python scripts/asyncapi.py > docs/asyncapi.json
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import msgspec

from runtime import topics
from runtime.messages import (
    Applied,
    Birth,
    Cancel,
    ControlState,
    Correction,
    Deferred,
    Draining,
    Offline,
    Refused,
)
from runtime.telemetry import Rollup
from tierwise import __version__

_JSON = "application/json"
_REF = "#/components/schemas/{name}"
_PARAMETERS = {
    "region": "Whose broker it is, or whom it is about.",
    "gateway": "Id of a gateway, or of the cloud tier.",
    "agent": "Id of whoever asks: a device, or a gateway that asks above.",
    "below": "A region below this one.",
    "site": "Id of a process.",
    "key": "Of an alert.",
}
REQUEST, ANSWER = "InferenceRequest", "InferenceResponse"


class Channel(NamedTuple):
    """A topic: who publishes (``send`` is a tier's own word), and what."""

    address: str
    text: str
    messages: tuple[str, ...]
    is_retained: bool = False


def channels() -> dict[str, Channel]:
    """All topics, by the function that spells them."""
    region, gateway, agent = "{region}", "{gateway}", "{agent}"
    state = ("Birth", "Draining", "Offline")
    return {
        "gateway_requests": Channel(
            topics.gateway_requests(region, gateway, agent),
            "Requests to one gateway (QoS 0), cancels, and words about corrections.",
            (REQUEST, "Cancel", "Applied"),
        ),
        "any_requests": Channel(
            topics.any_requests(region, agent),
            f"Requests to whichever gateway takes them: {topics.any_requests_shared(region)}.",
            (REQUEST,),
        ),
        "agent_replies": Channel(
            topics.agent_replies(region, agent),
            "Replies, corrections, and words about what was sent up.",
            (ANSWER, "Correction", "Applied", "Refused", "Deferred"),
        ),
        "gateway_state": Channel(
            topics.gateway_state(region, gateway), "How a gateway is.", state, is_retained=True
        ),
        "agent_state": Channel(
            topics.agent_state(region, agent), "How an agent is.", state, is_retained=True
        ),
        "control": Channel(
            topics.control(region),
            "What operators have stopped and overridden in a region.",
            ("ControlState",),
            is_retained=True,
        ),
        "control_of": Channel(
            topics.control(region, "{below}"),
            "The same of a region above, relayed into this one.",
            ("ControlState",),
            is_retained=True,
        ),
        "up": Channel(
            topics.up(region, agent),
            f"Items of an outbox (QoS 1), taken by turns: {topics.up_shared(region)}. The user "
            "property `kind` says what it is.",
            ("Rollup", "Item", REQUEST),
        ),
        "agent_corrections": Channel(
            topics.agent_corrections(region, agent),
            "Where an agent tells applications on its device of corrections.",
            ("Correction",),
        ),
        "assignment": Channel(
            topics.assignment(region, "{site}"),
            "What a process is to run, signed.",
            ("Assignment",),
            is_retained=True,
        ),
        "assignment_below": Channel(
            topics.assignment_below(region, "{below}", "{site}"),
            "The same for a process of a region below.",
            ("Assignment",),
            is_retained=True,
        ),
        "alert": Channel(
            f"{topics.ROOT}/{region}/alerts/{{key}}",
            "An alert of the cloud tier of this region, while it fires.",
            ("Alert",),
            is_retained=True,
        ),
        "announcement": Channel(
            topics.announcement(region, "{below}"),
            "Files that gateways of a region will be asked for.",
            ("Announcement",),
            is_retained=True,
        ),
    }


def describe() -> dict[str, Any]:
    """The whole of it."""
    types = [
        Birth, Draining, Offline, Cancel, ControlState, Applied, Refused, Deferred, Correction,
        Rollup,
    ]  # fmt: skip
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    messages: dict[str, Any] = {
        one.__name__: {
            "contentType": _JSON,
            "payload": {"$ref": f"#/components/schemas/{one.__name__}"},
        }
        for one in types
    }
    oip = {
        "contentType": topics.CONTENT_TYPE,
        "summary": "A body of the Open Inference Protocol v2 with binary tensors.",
    }
    messages[REQUEST] = oip | {"headers": _headers("request"), "payload": {"type": "string"}}
    messages[ANSWER] = oip | {"headers": _headers("answer"), "payload": {"type": "string"}}
    for name in ("Item", "Alert", "Assignment", "Announcement"):
        messages[name] = {"contentType": _JSON, "payload": {"type": "object"}}
    found = channels()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tierwise over MQTT 5",
            "version": __version__,
            "description": "Who may publish what is in wire-protocol.md. Types only grow: unknown "
            "fields are to be skipped.",
        },
        "defaultContentType": _JSON,
        "channels": {name: _channel(one) for name, one in found.items()},
        "operations": {
            f"publish_{name}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": one.text,
            }
            for name, one in found.items()
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _channel(one: Channel) -> dict[str, Any]:
    names = [name for name in _PARAMETERS if f"{{{name}}}" in one.address]
    return {
        "address": one.address,
        "description": one.text,
        "parameters": {name: {"description": _PARAMETERS[name]} for name in names},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in one.messages},
        "bindings": {"mqtt": {"bindingVersion": "0.2.0"}},
        "x-retained": one.is_retained,
    }


def _headers(of: str) -> dict[str, Any]:
    """User properties; all of them are texts."""
    shared = (topics.REQUEST_ID, topics.HEADER_LENGTH)
    asked = (
        topics.REMAINING_MS, topics.ATTEMPT, topics.HOP, topics.MODEL, topics.MODEL_VERSION,
        topics.RESIDENCY, topics.PRIORITY, topics.TRACEPARENT,
    )  # fmt: skip
    told = (topics.OUTCOME, topics.SERVICE_US, topics.QUEUE_US, topics.QUEUE_LEN, topics.ERROR_CODE)
    names = (*shared, *(asked if of == "request" else told))
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe(), indent=1, sort_keys=True) + "\n")
