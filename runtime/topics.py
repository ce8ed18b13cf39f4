"""Every MQTT topic and property name of Tierwise; nothing else in the tree spells one out.

The asker's id is part of the request topic, because that is what a broker's access rules can check:
MQTT does not tell a receiver who published (MQTT 5, 4.12 lists no such property).
"""

from __future__ import annotations

import re
from typing import NamedTuple

ROOT = "tierwise/v1"
CONTENT_TYPE = "application/vnd.oip.v2"

# MQTT 5 user properties.
REMAINING_MS = "remaining-ms"
HEADER_LENGTH = "header-length"
REQUEST_ID = "request-id"
ATTEMPT = "attempt"
HOP = "hop"
MODEL = "model"
MODEL_VERSION = "model-version"
RESIDENCY = "residency"
PRIORITY = "priority"
TRACEPARENT = "traceparent"
ROUTE = "route"
GEAR = "gear"
EARLIER = "earlier"
BELIEFS = "beliefs"
AUDIT = "audit"
STANDS = "stands"
FORWARDED_BY = "forwarded-by"
OUTCOME = "outcome"
SERVICE_US = "service-us"
QUEUE_US = "queue-us"
QUEUE_LEN = "queue-len"
ERROR_CODE = "error-code"
RETRY_AFTER_MS = "retry-after-ms"
ITEM = "item"
KIND = "kind"
ORIGIN = "origin"
AGE_MS = "age-ms"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """A region, gateway or agent id that is safe inside a topic.

    Raises:
        ValueError: empty, over 64 characters, or with a character outside letters, digits, ``._-``.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no usable id: 1 to 64 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    return name


def gateway_requests(region: str, gateway: str, agent: str = "+") -> str:
    """Requests to one gateway; with the default agent, the filter that it subscribes to."""
    return f"{ROOT}/{region}/gw/{gateway}/req/{agent}"


def any_requests(region: str, agent: str) -> str:
    """Requests to whichever gateway takes them."""
    return f"{ROOT}/{region}/any/req/{agent}"


def any_requests_shared(region: str) -> str:
    """The shared subscription through which gateways take turns at ``any_requests``."""
    return f"$share/gw/{ROOT}/{region}/any/req/+"


def agent_replies(region: str, agent: str) -> str:
    """The one topic on which an agent hears replies."""
    return f"{ROOT}/{region}/agent/{agent}/rep"


def gateway_state(region: str, gateway: str = "+") -> str:
    """Retained state of a gateway; with the default, the filter for all of a region."""
    return f"{ROOT}/{region}/gw/{gateway}/state"


def site_of_state(topic: str) -> str:
    """Whose state a state topic holds."""
    return topic.split("/")[-2] if topic.endswith("/state") else ""


def region_of_state(topic: str) -> str:
    """In which region the process is whose state a state topic holds."""
    return topic.split("/")[2] if site_of_state(topic) else ""


def is_agent_state(topic: str) -> bool:
    """Whether a state topic is that of an agent, not of a gateway or a cloud."""
    return topic.split("/")[-3:-2] == ["agent"] and bool(site_of_state(topic))


def agent_state(region: str, agent: str = "+") -> str:
    """Retained state of an agent."""
    return f"{ROOT}/{region}/agent/{agent}/state"


def control(region: str, origin: str = "") -> str:
    """Retained: what is stopped in a region; with an origin, by the region above of that name.

    ``origin`` may be ``+``, the filter for all regions above.
    """
    return f"{ROOT}/{region}/control/{origin}" if origin else f"{ROOT}/{region}/control"


def control_origin(topic: str) -> str:
    """Which region has stopped what is retained at a control topic."""
    parts = topic.split("/")
    return parts[-2] if parts[-1] == "control" else parts[-1]


def all_states() -> tuple[str, str]:
    """The filters for the states of all agents, and of all gateways and clouds, of all regions."""
    return agent_state("+"), gateway_state("+")


def all_controls() -> str:
    """The filter for what all regions of a broker retain of their own stops."""
    return control("+")


def agent_sync(region: str, agent: str) -> str:
    """Where an agent speaks to itself, to know that what was retained before has reached it."""
    return f"{ROOT}/{region}/agent/{agent}/sync"


def gateway_sync(region: str, gateway: str) -> str:
    """The same for a gateway."""
    return f"{ROOT}/{region}/gw/{gateway}/sync"


def up(region: str, agent: str) -> str:
    """What an agent has kept in its outbox for those above."""
    return f"{ROOT}/{region}/up/{agent}"


def up_shared(region: str) -> str:
    """The shared subscription through which gateways take turns at ``up``."""
    return f"$share/up/{ROOT}/{region}/up/+"


def agent_corrections(region: str, agent: str) -> str:
    """Where an agent tells applications on its device of corrections."""
    return f"{ROOT}/{region}/agent/{agent}/corrections"


def assignment(region: str, site: str) -> str:
    """Retained: what a process of this region is to run (``runtime.assignments``)."""
    return f"{ROOT}/{region}/assign/{site}"


def assignment_below(region: str, below: str, site: str = "+") -> str:
    """Retained in a region: the same for a region below it; by default the filter for all of it."""
    return f"{ROOT}/{region}/assign/{below}/{site}"


class AssignmentTopic(NamedTuple):
    """At which region's broker, and for which process of which region."""

    region: str
    below: str
    site: str


_ASSIGNMENT = re.compile(
    rf"{ROOT}/(?P<region>[^/]+)/assign/(?:(?P<below>{_NAME.pattern})/)?(?P<site>{_NAME.pattern})"
)


def parse_assignment_topic(topic: str) -> AssignmentTopic | None:
    """The parts of a topic of ``assignment`` or ``assignment_below``; None when it is neither."""
    found = _ASSIGNMENT.fullmatch(topic)
    if found is None:
        return None
    return AssignmentTopic(found["region"], found["below"] or found["region"], found["site"])


def announcement(region: str, below: str) -> str:
    """Retained in a region: what gateways of a region below it will be asked for."""
    return f"{ROOT}/{region}/announce/{below}"


def announced_region(topic: str) -> str:
    """For which region's gateways an announcement is."""
    return topic.rsplit("/", 1)[-1]


def alert(region: str, key: str) -> str:
    """Retained while it fires: an alert of the cloud tier of this region; empty once it is over."""
    return f"{ROOT}/{region}/alerts/{check_name(key)}"


def agent_of_up(topic: str) -> str:
    """Whose outbox a message comes from; empty where the topic is another one."""
    parts = topic.split("/")
    return parts[4] if len(parts) == 5 and parts[3] == "up" else ""  # noqa: PLR2004 its form


class RequestTopic(NamedTuple):
    """Who asks whom; ``gateway`` is empty on the shared topic."""

    region: str
    gateway: str
    agent: str


_REQUEST = re.compile(
    rf"{ROOT}/(?P<region>[^/]+)/(?:gw/(?P<gateway>[^/]+)|any)/req/(?P<agent>[^/]+)"
)


def parse_request_topic(topic: str) -> RequestTopic | None:
    """The parts of a request topic, or None when it is not one."""
    found = _REQUEST.fullmatch(topic)
    if found is None:
        return None
    return RequestTopic(found["region"], found["gateway"] or "", found["agent"])


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic falls under a filter (MQTT 5, 4.7); a ``$share`` prefix is ignored."""
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[2]
    wanted, parts = topic_filter.split("/"), topic.split("/")
    if parts[0].startswith("$") and wanted[0] in ("#", "+"):
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(parts) or level not in ("+", parts[position]):
            return False
    return len(wanted) == len(parts)
