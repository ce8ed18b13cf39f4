"""The certificate of raspberry-pi.md: made as the page says, it lets a device in as itself."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.documents import ROOT, SHELL, blocks_of, lines_of
from fakes.ports import free_port
from fakes.programs import TierProgram
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.broker import find_mosquitto
from runtime.adapters.dial import BrokerAddress, TlsFiles
from runtime.adapters.paho_bus import PahoBus
from runtime.ports import Message

PAGE = blocks_of((ROOT / "docs" / "raspberry-pi.md").read_text(), "raspberry-pi.md")
MOSQUITTO = ROOT / "deploy" / "mosquitto"
pytestmark = pytest.mark.timeout(60)


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=20)


def signed(folder: Path, name: str, extension: str) -> None:
    """What an authority does with a request."""
    (folder / "extension").write_text(extension)
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", "extension", "-out", f"{name}.pem",
    )  # fmt: skip


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """An authority, a broker, an operator, and the device as the page has it."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (line,) = [
        line
        for block in PAGE
        if block.language in SHELL
        for line in lines_of(block)
        if "openssl req" in line
    ]
    request = shlex.split(line.replace("/etc/tierwise/", "").removeprefix("sudo openssl "))
    openssl(folder, *request)
    for name in ("server", "operator"):
        openssl(folder, *[word.replace("camera-1", name) for word in request])
    openssl(
        folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem",
    )  # fmt: skip
    for name in ("server", "operator", "camera-1"):
        signed(folder, name, "subjectAltName=IP:127.0.0.1" if name == "server" else "")
    return folder


@pytest.fixture
def broker(tmp_path: Path, keys: Path) -> Iterator[BrokerAddress]:
    """mosquitto with the file of deploy/ as its comment says for devices far away."""
    program = find_mosquitto()
    if program is None:
        assert os.environ.get("CI") != "true", "apt-get install mosquitto"
        pytest.skip("there is no mosquitto")
    rules = (MOSQUITTO / "mosquitto.conf").read_text()
    comment = " ".join(rules.replace("\n#", "").split())
    told = re.findall(r"(require_certificate true|use_identity_as_username true)", comment)
    assert len(told) == 2
    port = free_port()
    listener = [
        f"listener {port} 127.0.0.1",
        *(f"{word} {keys}/{file}" for word, file in (
            ("cafile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key"),
        )),
        *told,
    ]  # fmt: skip
    rules = rules.replace("\nlistener 1883\n", "\n" + "\n".join(listener) + "\n")
    rules = rules.replace("/etc/mosquitto/", f"{tmp_path}/")
    shutil.copy(MOSQUITTO / "tierwise.acl", tmp_path)
    (tmp_path / "tierwise.passwords").touch()
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(rules + ("user root\n" if os.geteuid() == 0 else ""))
    process = subprocess.Popen([program, "-c", settings], stderr=subprocess.DEVNULL)
    try:
        yield BrokerAddress("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


async def test_a_device_is_let_in_by_its_certificate_and_is_who_it_says(
    tmp_path: Path, keys: Path, broker: BrokerAddress
) -> None:
    (toml,) = [tomllib.loads(one.text) for one in PAGE if one.language == "toml"]
    assert toml["agent"] == "camera-1"
    # As on the page, with the key where it lies, and without systemd, which hands it over there.
    flags = [
        f"broker.tls_ca_file={keys / Path(toml['broker']['tls_ca_file']).name}",
        f"broker.tls_cert_file={keys / Path(toml['broker']['tls_cert_file']).name}",
        f"broker.tls_key_file={keys / 'camera-1.key'}",
    ]
    heard: list[Message] = []
    operator = TlsFiles(keys / "ca.pem", keys / "operator.pem", keys / "operator.key")
    address = BrokerAddress(broker.host, broker.port, tls=operator)
    bus = PahoBus(address, client_id="operator", backoff_min_s=0.05)
    bus.subscribe("tierwise/v1/#", heard.append, qos=1)
    await bus.start()
    try:
        assert await bus.wait_connected(10)
        with TierProgram("edge", "camera-1", tmp_path, broker, *flags) as device:
            mine = topics.agent_state("plant", "camera-1")
            await eventually(
                lambda: mine in [one.topic for one in heard] or device.process.poll() is not None,
                20,
            )
            assert device.process.poll() is None, device.log
    finally:
        await bus.close()

    birth = next(one for one in heard if one.topic == mine)
    assert b'"birth"' in birth.payload
