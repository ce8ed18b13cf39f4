"""How much of what was published is still on its way out."""

from __future__ import annotations

import asyncio

from runtime.errors import NotConnectedError


class SendQueue:
    """Counts messages not yet sent (QoS 0) or not yet acknowledged (QoS 1), and bounds them.

    Attributes:
        drained: set while nothing is on its way.
        num_messages: messages on their way.
        num_bytes: bytes of their packets.
    """

    def __init__(self, *, max_bytes: int, max_messages: int) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self.num_messages = 0
        self.num_bytes = 0
        self.drained = asyncio.Event()
        self.drained.set()

    def check_room(self, size: int) -> None:
        """Refuses a packet that does not fit; an empty queue takes any one packet.

        Raises:
            NotConnectedError: the queue is full, so the connection does not keep up.
        """
        if self.num_messages and (
            self.num_messages >= self._max_messages or self.num_bytes + size > self._max_bytes
        ):
            raise NotConnectedError(
                f"the send queue is full: {self.num_messages} messages, {self.num_bytes} bytes"
            )

    def add(self, size: int) -> None:
        """A packet of ``size`` bytes is on its way."""
        self.num_messages += 1
        self.num_bytes += size
        self.drained.clear()

    def remove(self, size: int) -> None:
        """A packet has left."""
        self.num_messages -= 1
        self.num_bytes -= size
        if not self.num_messages:
            self.drained.set()
