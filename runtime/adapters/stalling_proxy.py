"""A TCP proxy that can go silent: a cut cable, a vanished gateway, a frozen broker, without root.

Closing a connection is the kind failure, which everyone notices. A cut here closes nothing: both
sides keep an open connection on which nothing moves, which only a keep alive notices.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 65_536


class StallingProxy:
    """Passes bytes between whoever connects and one target, until it is cut.

    What is buffered is bounded: a cut proxy stops reading, so the senders fill up and wait.

    Attributes:
        bytes_up: passed on to the target.
        bytes_down: passed on from the target.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = (target_host, target_port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.bytes_up = 0
        self.bytes_down = 0

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes."""
        return not self._flowing.is_set()

    @property
    def num_connections(self) -> int:
        """Connections that are open, stalled ones included."""
        return len(self._tasks)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens and returns the port."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=_CHUNK_BYTES)
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    def cut(self) -> None:
        """Stalls everything both ways; new connections are accepted and stall, too."""
        self._flowing.clear()

    def heal(self) -> None:
        """Goes on where it was cut; nothing was lost."""
        self._flowing.set()

    async def close(self) -> None:
        """Stops listening and closes all connections; safe to call twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that asyncio makes logs an error when ``close`` cancels it.
        task = asyncio.create_task(self._serve(reader, writer), name="stalling-proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _set_nodelay(writer)
        try:
            await self._flowing.wait()
            await self._connect(reader, writer)
        except OSError:
            pass  # the target is not there, so neither is the connection
        finally:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target
        far_reader, far_writer = await asyncio.open_connection(host, port, limit=_CHUNK_BYTES)
        _set_nodelay(far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far_writer, self._count_up))
                group.create_task(self._pass(far_reader, writer, self._count_down))
        except* OSError:
            pass  # one side was reset; the other one is now
        finally:
            far_writer.transport.abort()

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: Callable[[int], None],
    ) -> None:
        """Passes one direction on to its end; the other one may go on for longer."""
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
            count(len(chunk))
        await self._flowing.wait()
        writer.write_eof()

    def _count_up(self, size: int) -> None:
        self.bytes_up += size

    def _count_down(self, size: int) -> None:
        self.bytes_down += size


def _set_nodelay(writer: asyncio.StreamWriter) -> None:
    # asyncio sets it, too, but that is not documented and the measurements depend on it.
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
