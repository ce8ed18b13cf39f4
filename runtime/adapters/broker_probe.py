"""Asks a broker whether it takes MQTT 5 connections; an open port alone does not say so."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from runtime.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.adapters.dial import BrokerAddress

_WITHIN_S = 15.0
_POLL_S = 0.01
_ANSWER_S = 2.0

_CLIENT_ID = b"tierwise-probe"
# MQTT 5, 3.1: protocol name and version, clean start, keep alive 10 s, no properties, client id.
_CONNECT_BODY = b"\x00\x04MQTT\x05\x02\x00\x0a\x00\x00" + bytes([len(_CLIENT_ID)]) + _CLIENT_ID
_CONNECT = b"\x10" + bytes([len(_CONNECT_BODY)]) + _CONNECT_BODY
_DISCONNECT = b"\xe0\x00"
_CONNACK = 0x20


def wait_until_accepting(
    address: BrokerAddress,
    is_alive: Callable[[], bool],
    is_ready: Callable[[], bool],
    within_s: float = _WITHIN_S,
) -> None:
    """Returns once the broker has accepted an MQTT 5 CONNECT; none is sent before ``is_ready``.

    Raises:
        StartError: ``is_alive`` turned false, or the time is over.
    """
    failure = "it is not ready"
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if not is_alive():
            raise StartError("ended while it was starting")
        try:
            if is_ready() and accepts_mqtt5(address):
                return
        except OSError as error:
            failure = str(error)
        time.sleep(_POLL_S)
    raise StartError(
        f"did not accept an MQTT 5 connection on {address} within {within_s:g} s: {failure}"
    )


def accepts_mqtt5(address: BrokerAddress) -> bool:
    """Whether a CONNECT is answered with success.

    Raises:
        OSError: there is no connection, or no answer.
    """
    where = (address.host, address.port)
    with socket.create_connection(where, timeout=_ANSWER_S) as connection:
        connection.sendall(_CONNECT)
        answer = b""
        # Packet type, remaining length (one byte is enough for a CONNACK of ours), flags, reason.
        while len(answer) < 4:  # noqa: PLR2004
            chunk = connection.recv(64)
            if not chunk:
                raise ConnectionResetError("closed instead of answering")
            answer += chunk
        connection.sendall(_DISCONNECT)
    return answer[0] == _CONNACK and answer[3] == 0
