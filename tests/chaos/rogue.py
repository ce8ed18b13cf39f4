"""A gateway that misbehaves: accepts and never answers, answers garbage, answers twice or late."""

from __future__ import annotations

import argparse
import threading
import time
from typing import Any

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from runtime import topics
from runtime.messages import Birth, Tier, encode_control

SITE = "rogue-1"
LATE_S = 1.0


def main() -> None:
    """Says that it is a gateway and answers as it is told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manner", choices=("mute", "garbage", "twice", "late"))
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--region", required=True)
    options = parser.parse_args()
    client = Client(CallbackAPIVersion.VERSION2, client_id=SITE, protocol=MQTTv5)

    def reply(message: Any, payload: bytes, *user: tuple[str, str]) -> None:
        asked = message.properties
        said = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        said.CorrelationData = asked.CorrelationData
        said.UserProperty = list(user)
        client.publish(asked.ResponseTopic, payload, properties=said)

    def on_connect(*_: Any) -> None:
        client.subscribe(topics.gateway_requests(options.region, SITE))
        birth = Birth(Tier.REGIONAL, SITE, options.region, time.time_ns(), capacity=1_000_000)
        client.publish(
            topics.gateway_state(options.region, SITE), encode_control(birth), qos=1, retain=True
        )

    def on_message(_client: Any, _userdata: Any, message: Any) -> None:
        if not hasattr(message.properties, "ResponseTopic"):
            return
        refusal = b'{"error":"no"}', ("outcome", "failed"), ("error-code", "overloaded")
        match options.manner:
            case "garbage":
                reply(message, b"\xff\x00not an answer", ("outcome", "answered"))
            case "twice":
                reply(message, *refusal)
                reply(message, *refusal)
            case "late":
                threading.Timer(LATE_S, reply, (message, *refusal)).start()

    client.on_connect, client.on_message = on_connect, on_message
    client.connect(options.host, options.port)
    client.loop_forever()


if __name__ == "__main__":
    main()
