"""The bus over TLS, with a certificate authority made for the test."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fakes.brokers import launch
from fakes.waiting import eventually
from runtime.adapters.broker import RunningBroker
from runtime.adapters.dial import BrokerAddress, TlsFiles
from runtime.adapters.paho_bus import PahoBus
from runtime.errors import StartError
from runtime.ports import Message

pytestmark = pytest.mark.integration


class Authority:
    """A certificate authority in a folder, with a server and a client certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=test authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem",
        )  # fmt: skip
        self._issue("server", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self._issue("agent", "subjectAltName=DNS:agent")

    @property
    def server(self) -> TlsFiles:
        return TlsFiles(
            self.folder / "ca.pem", self.folder / "server.pem", self.folder / "server.key"
        )

    @property
    def agent(self) -> TlsFiles:
        return TlsFiles(
            self.folder / "ca.pem", self.folder / "agent.pem", self.folder / "agent.key"
        )

    def _issue(self, name: str, extension: str) -> None:
        (self.folder / f"{name}.ext").write_text(extension)
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None and os.environ.get("CI") != "true":
        pytest.skip("there is no openssl to make certificates with")
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    with launch(tmp_path, "auto") as running:
        yield running


@pytest.fixture
async def tls_port(broker: RunningBroker, authority: Authority) -> AsyncIterator[int]:
    """A TLS front of the broker that asks clients for their certificate."""
    files = authority.server
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    assert files.certificate is not None
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = ssl.CERT_REQUIRED
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", broker.address.port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, far_writer))
                group.create_task(pump(far_reader, writer))
        except* OSError:
            pass
        finally:
            writer.transport.abort()
            far_writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65_536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def tls_bus(
    port: int, tls: TlsFiles, *, host: str = "localhost", client_id: str = "b"
) -> AsyncIterator[PahoBus]:
    address = BrokerAddress(host, port, tls=tls)
    bus = PahoBus(address, client_id=client_id, backoff_min_s=0.01, backoff_max_s=0.05)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


@pytest.mark.parametrize("size", [10, 20_000, 1_000_000])
async def test_messages_of_every_size_pass_over_mutual_tls(
    tls_port: int, authority: Authority, size: int
) -> None:
    """A TLS record is 16 KB: what is left of one must be read without the selector's help."""
    heard: list[bytes] = []
    sent = [bytes([number]) * size for number in range(5)]
    async with tls_bus(tls_port, authority.agent) as bus:
        bus.subscribe("t", lambda message: heard.append(message.payload), qos=1)
        assert await bus.wait_connected(10)

        for payload in sent:
            bus.publish(Message("t", payload, qos=1))

        await eventually(lambda: len(heard) == len(sent))
    assert heard == sent


async def test_a_broker_of_an_unknown_authority_is_refused_and_said_so(
    tls_port: int, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger").agent
    with capture_logs() as logs:
        async with tls_bus(tls_port, stranger) as bus:
            await eventually(lambda: logs)
            assert not bus.is_connected

    assert "CERTIFICATE_VERIFY_FAILED" in logs[0]["reason"]


async def test_a_certificate_of_another_host_is_refused(
    tls_port: int, authority: Authority
) -> None:
    with capture_logs() as logs:
        async with tls_bus(tls_port, authority.agent, host="127.1") as bus:
            await eventually(lambda: logs)
            assert not bus.is_connected

    assert "CERTIFICATE_VERIFY_FAILED" in logs[0]["reason"]


async def test_a_client_without_a_certificate_is_not_let_in(
    tls_port: int, authority: Authority
) -> None:
    with capture_logs() as logs:
        async with tls_bus(tls_port, TlsFiles(ca=authority.agent.ca)) as bus:
            await eventually(lambda: logs)
            assert not bus.is_connected

    assert "connection.failed" in [entry["event"] for entry in logs]


async def test_tls_files_that_are_missing_are_a_start_error(tmp_path: Path) -> None:
    address = BrokerAddress("localhost", 8883, tls=TlsFiles(ca=tmp_path / "absent.pem"))
    bus = PahoBus(address, client_id="b")

    with pytest.raises(StartError, match=r"absent\.pem"):
        await bus.start()
    await bus.close()
