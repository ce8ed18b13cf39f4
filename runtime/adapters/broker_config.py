"""The configuration files of the brokers that ``start_broker`` starts.

Both listen on one address and let anyone in, so ``start_broker`` allows them on loopback only. A
broker that others can reach is set up by an operator (deploy/).
"""

from __future__ import annotations

import os

from runtime.adapters.packet_size import DEFAULT_MAX_PACKET_BYTES


def mosquitto_config(host: str, port: int) -> str:
    """``mosquitto.conf`` for a broker that forgets everything when it stops."""
    lines = [
        "per_listener_settings false",
        f"listener {port} {host}",
        "allow_anonymous true",
        "persistence false",
        # Nagle's algorithm costs 44 ms for each QoS 1 message.
        "set_tcp_nodelay true",
        f"max_packet_size {DEFAULT_MAX_PACKET_BYTES}",
        # The default of 20 is also what a client may have unacknowledged.
        "max_inflight_messages 200",
        "max_queued_messages 1000",
        "max_queued_bytes 67108864",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if os.geteuid() == 0:
        # Else it becomes a user who may not read this file, and loses its tie to its parent.
        lines.append("user root")
    return "\n".join(lines) + "\n"


def embedded_config(host: str, port: int) -> str:
    """TOML for rumqttd: one MQTT 5 listener, queues that bound the memory of each filter."""
    return f"""\
id = 0

[router]
id = 0
max_connections = 10000
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 4

[v5.1]
name = "v5-1"
listen = "{_bracketed(host)}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {DEFAULT_MAX_PACKET_BYTES}
max_inflight_count = 500
dynamic_filters = true
"""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
