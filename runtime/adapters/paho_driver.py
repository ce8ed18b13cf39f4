"""Lets an asyncio loop do what paho's own thread would: read, write, and watch the keep alive."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

from paho.mqtt import MQTTException

if TYPE_CHECKING:
    from collections.abc import Callable

    import paho.mqtt.client as mqtt

    from runtime.adapters.buffered_socket import BufferedSocket

# paho 2.1 lets these out of its parser; to us each means that the peer does not speak MQTT 5.
_MALFORMED = (MQTTException, ValueError, struct.error, LookupError)

# So many packets are handled before the other tasks of the loop get their turn.
_MAX_READS_AT_ONCE = 64

# paho looks at the keep alive only when asked. Asking eight times per keep alive keeps the moment
# at which a dead connection is noticed within 2.25 of them.
_MAX_TICK_S = 1.0
_TICKS_PER_KEEP_ALIVE = 8


class PahoDriver:
    """Drives one paho client over one socket until ``stop``; used from the loop only."""

    def __init__(
        self, client: mqtt.Client, sock: BufferedSocket, on_malformed: Callable[[str], None]
    ) -> None:
        self._client = client
        self._socket = sock
        self._fd = sock.fileno()
        self._on_malformed = on_malformed
        self._loop = asyncio.get_running_loop()
        self._is_running = False
        self._is_writing = False
        self._timer: asyncio.TimerHandle | None = None
        client.on_socket_open = lambda *_: self._start()
        client.on_socket_close = lambda *_: self.stop()
        client.on_socket_register_write = lambda *_: self._write_soon()
        client.on_socket_unregister_write = lambda *_: self._stop_writing()

    def stop(self) -> None:
        """Takes everything off the loop; safe to call twice."""
        if not self._is_running:
            return
        self._is_running = False
        self._loop.remove_reader(self._fd)
        self._stop_writing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._is_running = True
        self._loop.add_reader(self._fd, self._read)
        self._tick()

    def _read(self) -> None:
        for _ in range(_MAX_READS_AT_ONCE):
            if not self._is_running:
                return
            try:
                self._client.loop_read()
            except _MALFORMED as error:
                self._on_malformed(f"malformed packet: {error}")
                return
            if not self._socket.has_pending:
                return
        # The rest is in our memory, where the selector cannot see it.
        self._loop.call_soon(self._read)

    def _write_soon(self) -> None:
        # In the next turn of the loop, because paho may be inside a callback, where writing would
        # dead-lock; without asking the selector first, because a socket is nearly always ready.
        self._loop.call_soon(self._write)

    def _write(self) -> None:
        if not self._is_running:
            return
        self._client.loop_write()
        if self._is_running and not self._is_writing and self._client.want_write():
            self._is_writing = True
            self._loop.add_writer(self._fd, self._write)

    def _stop_writing(self) -> None:
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._fd)

    def _tick(self) -> None:
        if not self._is_running:
            return
        self._client.loop_misc()
        # The broker may have given us another keep alive than we asked for.
        wait_s = min(_MAX_TICK_S, (self._client.keepalive or 1) / _TICKS_PER_KEEP_ALIVE)
        if self._is_running:
            self._timer = self._loop.call_later(wait_s, self._tick)
