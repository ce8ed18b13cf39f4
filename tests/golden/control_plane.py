"""Writes down everything that other programs may rely on: message types, topics, names, codes.

python tests/golden/control_plane.py > tests/golden/control_plane.schema.json
"""

from __future__ import annotations

import enum
import json
import sys
from typing import Any

import msgspec

from runtime import topics
from runtime.errors import CATALOGUE
from runtime.exchange.wire import CONTROL_CONTENT_TYPE
from runtime.messages import (
    ControlMessage,
    Guarantee,
    Hop,
    ItemKind,
    Outcome,
    Reason,
    Residency,
    Tier,
)
from runtime.review_report import ReviewReport, Source

ENUMERATIONS: tuple[type[enum.StrEnum], ...] = (
    Tier,
    Residency,
    Outcome,
    Reason,
    Guarantee,
    ItemKind,
    Source,
)
# Constants of runtime.topics that are no user property.
NO_PROPERTIES = ("ROOT", "CONTENT_TYPE")


def describe() -> dict[str, Any]:
    """The frozen surface as plain values."""
    region, gateway, agent = "<region>", "<gateway>", "<agent>"
    constants = {
        name: value
        for name, value in vars(topics).items()
        if name.isupper() and not name.startswith("_")
    }
    return {
        "messages": msgspec.json.schema(ControlMessage),
        "provenance": msgspec.json.schema(Hop),
        "reviews": msgspec.json.schema(ReviewReport),
        "topics": {
            "gateway_requests": topics.gateway_requests(region, gateway, agent),
            "gateway_requests_filter": topics.gateway_requests(region, gateway),
            "any_requests": topics.any_requests(region, agent),
            "any_requests_shared": topics.any_requests_shared(region),
            "agent_replies": topics.agent_replies(region, agent),
            "gateway_state": topics.gateway_state(region, gateway),
            "gateway_state_filter": topics.gateway_state(region),
            "up": topics.up(region, agent),
            "up_shared": topics.up_shared(region),
            "agent_corrections": topics.agent_corrections(region, agent),
            "agent_state": topics.agent_state(region, agent),
            "control": topics.control(region),
            "control_from_above": topics.control(region, "<region above>"),
            "agent_sync": topics.agent_sync(region, agent),
            "gateway_sync": topics.gateway_sync(region, gateway),
            "alert": topics.alert(region, "key"),
        },
        "constants": {
            "CONTROL_CONTENT_TYPE": CONTROL_CONTENT_TYPE,
            **{name: constants.pop(name) for name in NO_PROPERTIES},
        },
        "user_properties": constants,
        "values": {one.__name__: [member.value for member in one] for one in ENUMERATIONS},
        "error_codes": {code: shown.http_status for code, shown in CATALOGUE.items()},
    }


def render() -> str:
    """The golden file's text."""
    return json.dumps(describe(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
