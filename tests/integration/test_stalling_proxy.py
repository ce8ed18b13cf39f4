from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from fakes.waiting import eventually
from runtime.adapters.stalling_proxy import StallingProxy

pytestmark = pytest.mark.integration


class EchoServer:
    def __init__(self) -> None:
        self.num_connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[EchoServer, StallingProxy, int]]:
    server = EchoServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    proxy = StallingProxy(*listening.sockets[0].getsockname())
    port = await proxy.start()
    yield server, proxy, port
    await proxy.close()
    listening.close()


Echo = tuple[EchoServer, StallingProxy, int]


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def test_bytes_pass_both_ways_and_are_counted(echo: Echo) -> None:
    _, proxy, port = echo
    reader, writer = await connect(port)

    writer.write(bytes(300_000))
    assert await reader.readexactly(300_000) == bytes(300_000)
    await eventually(lambda: (proxy.bytes_up, proxy.bytes_down) == (300_000, 300_000))

    writer.close()
    await eventually(lambda: proxy.num_connections == 0)


async def test_a_cut_stalls_without_closing_and_heals_without_loss(echo: Echo) -> None:
    _, proxy, port = echo
    reader, writer = await connect(port)
    writer.write(b"before")
    assert await reader.readexactly(6) == b"before"

    proxy.cut()
    assert proxy.is_cut
    writer.write(b"during")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    assert not reader.at_eof()
    proxy.heal()

    assert await asyncio.wait_for(reader.readexactly(6), 10.0) == b"during"
    writer.close()


async def test_a_connection_made_during_a_cut_is_accepted_and_stalls(echo: Echo) -> None:
    server, proxy, port = echo
    proxy.cut()

    reader, writer = await connect(port)
    writer.write(b"hello")
    await eventually(lambda: proxy.num_connections == 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    assert server.num_connections == 0
    proxy.heal()

    assert await asyncio.wait_for(reader.readexactly(5), 10.0) == b"hello"
    writer.close()


async def test_a_cut_proxy_makes_the_sender_wait_instead_of_buffering(echo: Echo) -> None:
    _, proxy, port = echo
    _, writer = await connect(port)
    proxy.cut()

    writer.write(bytes(50_000_000))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(writer.drain(), 0.2)

    assert proxy.bytes_up == 0
    writer.transport.abort()


async def test_the_end_of_one_side_reaches_the_other(echo: Echo) -> None:
    _, proxy, port = echo
    reader, writer = await connect(port)
    writer.write(b"last")
    writer.write_eof()

    assert await reader.read() == b"last"
    writer.close()
    await eventually(lambda: proxy.num_connections == 0)


async def test_a_reset_of_one_side_ends_the_other(echo: Echo) -> None:
    _, proxy, port = echo
    reader, writer = await connect(port)
    writer.write(b"x")
    await reader.readexactly(1)

    writer.transport.abort()

    await eventually(lambda: proxy.num_connections == 0)


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        target_port = unused.getsockname()[1]
    proxy = StallingProxy("127.0.0.1", target_port)
    reader, writer = await connect(await proxy.start())

    assert await asyncio.wait_for(reader.read(), 10.0) == b""

    writer.close()
    await proxy.close()


async def test_closing_ends_stalled_connections_and_leaves_no_task(echo: Echo) -> None:
    _, proxy, port = echo
    connections = [await connect(port) for _ in range(3)]
    await eventually(lambda: proxy.num_connections == 3)
    proxy.cut()

    await proxy.close()
    await proxy.close()

    assert proxy.num_connections == 0
    with pytest.raises(ConnectionRefusedError):
        await connect(port)
    for _, writer in connections:
        writer.transport.abort()
