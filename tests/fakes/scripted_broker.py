"""A broker whose every answer the test decides: for what real brokers will not do on demand."""

from __future__ import annotations

import asyncio
from typing import Self

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ, DISCONNECT = 1, 3, 8, 12, 14


class ScriptedBroker:
    """Answers CONNECT, SUBSCRIBE, PINGREQ and QoS 1 PUBLISH as it is told.

    Attributes:
        connack: reason code of CONNACK, then its properties with their length.
        suback: reason code of every SUBACK.
        puback: reason code of every PUBACK; None: none is sent.
        received: type and body of every packet, in order.
    """

    def __init__(
        self, *, connack: bytes = b"\x00\x00", suback: int = 0, puback: int | None = 0
    ) -> None:
        self.connack = connack
        self.suback = suback
        self.puback = puback
        self.received: list[tuple[int, bytes]] = []
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def num_received(self, packet_type: int) -> int:
        return sum(1 for kind, _ in self.received if kind == packet_type)

    def send(self, data: bytes) -> None:
        """Puts bytes on the newest connection."""
        self._writers[-1].write(data)

    def acknowledge(self, packet_identifier: int, reason: int = 0) -> None:
        self.send(b"\x40\x03" + packet_identifier.to_bytes(2) + bytes([reason]))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                body = await reader.readexactly(await _remaining_length(reader))
                self.received.append((first >> 4, body))
                self._answer(first, body)
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()

    def _answer(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == CONNECT:
            self.send(b"\x20" + bytes([1 + len(self.connack)]) + b"\x00" + self.connack)
        elif kind == SUBSCRIBE:
            self.send(b"\x90\x04" + body[:2] + b"\x00" + bytes([self.suback]))
        elif kind == PINGREQ:
            self.send(b"\xd0\x00")
        elif kind == PUBLISH and first & 0x02 and self.puback is not None:
            topic_end = 2 + int.from_bytes(body[:2])
            identifier = int.from_bytes(body[topic_end : topic_end + 2])
            self.acknowledge(identifier, self.puback)


async def _remaining_length(reader: asyncio.StreamReader) -> int:
    value, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value
