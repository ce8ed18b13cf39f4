"""The socket that paho reads from: fewer system calls, and a close that does not cost messages.

paho reads a packet as one byte, one byte, the rest. Here one system call takes what has arrived and
those small reads are served from memory; the owner must therefore go on reading while
``has_pending``, for the operating system no longer reports what is already here. The same holds for
the bytes that TLS keeps after decrypting a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

_READ_BYTES = 65_536


class BufferedSocket:
    """A connected, non-blocking socket; implements paho's ``SocketLike``.

    Attributes:
        keep_open: ``close`` leaves the connection open for ``finish``.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""
        self._position = 0
        self.keep_open = False

    @property
    def has_pending(self) -> bool:
        """Whether a read succeeds without waiting for the network."""
        if self._position < len(self._buffer):
            return True
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def recv(self, buffer_size: int) -> bytes:
        """Up to ``buffer_size`` bytes, empty at the end of the connection; raises like a socket."""
        if self._position >= len(self._buffer):
            chunk = self._socket.recv(max(buffer_size, _READ_BYTES))
            if len(chunk) <= buffer_size:
                return chunk
            self._buffer, self._position = chunk, 0
        start = self._position
        self._position = start + buffer_size
        return self._buffer[start : self._position]

    def send(self, buffer: bytes | bytearray) -> int:
        """Sends what fits and returns how much that was."""
        return self._socket.send(buffer)

    def fileno(self) -> int:
        """The file descriptor, -1 once closed."""
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001  a method of paho's SocketLike
        """Does nothing more than a socket would."""
        self._socket.setblocking(flag)

    def close(self) -> None:
        """Closes the connection, unless it is to be finished."""
        if not self.keep_open:
            self._socket.close()

    async def finish(self) -> None:
        """Closes our half and reads until the other side has closed, too.

        Closing at once while received bytes are unread would send a reset instead, and a reset may
        overtake the DISCONNECT: the broker would then publish the will of a clean close.
        """
        # Detached from TLS on purpose: what still comes is thrown away, encrypted or not.
        with socket.socket(fileno=self._socket.detach()) as raw, contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_WR)
            loop = asyncio.get_running_loop()
            while await loop.sock_recv(raw, _READ_BYTES):
                pass

    def abort(self) -> None:
        """Closes whatever is still open."""
        self._socket.close()
