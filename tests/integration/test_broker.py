"""Starting a broker: what it says of itself, what goes wrong, and that none is left behind."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fakes.brokers import launch
from fakes.waiting import eventually_sync
from runtime.adapters import broker as broker_module
from runtime.adapters.broker import MOSQUITTO_VARIABLE, Preference, start_broker
from runtime.adapters.broker_config import mosquitto_config
from runtime.adapters.broker_probe import accepts_mqtt5
from runtime.adapters.embedded_broker import _listening_descriptors
from runtime.errors import StartError

pytestmark = pytest.mark.integration

KINDS: list[Preference] = ["embedded", "mosquitto"]

# Starts a broker, says so, and waits to be killed.
STARTER = """\
import sys, time
from pathlib import Path
from runtime.adapters.broker import start_broker
broker = start_broker(Path(sys.argv[1]), prefer=sys.argv[2])
print(broker.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def no_mosquitto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MOSQUITTO_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(broker_module, "_SYSTEM_FOLDERS", ())


@pytest.fixture
def no_iotcore(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_started_broker_accepts_connections_until_it_is_stopped(
    tmp_path: Path, kind: Preference
) -> None:
    with launch(tmp_path, kind) as running:
        assert running.kind == kind
        assert running.version[0].isdigit()
        assert running.address.host == "127.0.0.1"
        assert accepts_mqtt5(running.address)
        assert psutil.pid_exists(running.pid)

    assert not running.is_running
    assert not psutil.pid_exists(running.pid)
    with pytest.raises(OSError, match="refused"):
        accepts_mqtt5(running.address)
    running.stop()


def test_localhost_is_an_address_of_the_loopback_interface(tmp_path: Path) -> None:
    with start_broker(tmp_path, host="localhost", prefer="embedded") as running:
        assert running.address.host == "127.0.0.1"


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_broker_can_be_stopped(
    tmp_path: Path, kind: Preference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "_STOP_WITHIN_S", 0.2)
    running = launch(tmp_path, kind)

    os.kill(running.pid, signal.SIGSTOP)
    running.stop()

    assert not psutil.pid_exists(running.pid)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_ends_with_the_process_that_started_it(tmp_path: Path, kind: Preference) -> None:
    launch(tmp_path, kind).stop()  # skips where there is none
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), kind], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        broker = psutil.Process(int(parent.stdout.readline()))

        parent.kill()

    eventually_sync(lambda: not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_can_take_a_port_again_at_once(tmp_path: Path, kind: Preference) -> None:
    with launch(tmp_path, kind) as first:
        client = socket.create_connection((first.address.host, first.address.port))

    with client, launch(tmp_path, kind, first.address.port) as second:
        assert second.address == first.address


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_in_use_is_said_at_once(tmp_path: Path, kind: Preference) -> None:
    launch(tmp_path, kind).stop()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        began_s = time.monotonic()

        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}.*another port"):
            start_broker(tmp_path, port=port, prefer=kind)

    assert time.monotonic() - began_s < 4.0


def test_a_broker_that_dies_at_start_is_said_at_once_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = program(
        tmp_path / "dying",
        'test "$1" = -h && { echo mosquitto version 9.9; exit 3; }; echo disk full >&2; exit 1',
    )
    monkeypatch.setenv(MOSQUITTO_VARIABLE, str(script))
    began_s = time.monotonic()

    with pytest.raises(StartError, match=r"mosquitto ended while it was starting.*disk full"):
        start_broker(tmp_path / "state")

    assert time.monotonic() - began_s < 4.0


@pytest.mark.parametrize(
    ("script", "text"),
    [("echo hello", "no mosquitto that runs here: hello"), ("exit 1", "nothing")],
)
def test_a_program_that_is_no_mosquitto_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, text: str
) -> None:
    monkeypatch.setenv(MOSQUITTO_VARIABLE, str(program(tmp_path / "other", script)))

    with pytest.raises(StartError, match=text):
        start_broker(tmp_path)


def test_a_named_mosquitto_that_is_absent_is_no_reason_to_take_another_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MOSQUITTO_VARIABLE, "/nonexistent/mosquitto")

    with pytest.raises(StartError, match=r"TIERWISE_MOSQUITTO=/nonexistent/mosquitto"):
        start_broker(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_looking_for_its_listeners_leaves_no_descriptor_open() -> None:
    """What it left open it would look at the next time, and leave open again: twice as many."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        before = psutil.Process().num_fds()

        found = [_listening_descriptors(port) for _ in range(3)]

        after = psutil.Process().num_fds()
        assert found == [[listener.fileno()]] * 3
    assert after == before


@pytest.mark.usefixtures("no_mosquitto")
def test_without_mosquitto_the_embedded_broker_is_taken(tmp_path: Path) -> None:
    with launch(tmp_path, "auto") as running:
        assert running.kind == "embedded"


@pytest.mark.usefixtures("no_mosquitto", "no_iotcore")
@pytest.mark.parametrize(
    ("prefer", "remedies"),
    [
        ("auto", r"pip install 'tierwise\[demo\]' or apt-get install mosquitto"),
        ("embedded", r"pip install 'tierwise\[demo\]'$"),
        ("mosquitto", r"apt-get install mosquitto$"),
    ],
)
def test_without_any_broker_the_remedies_are_named(
    tmp_path: Path, prefer: Preference, remedies: str
) -> None:
    with pytest.raises(StartError, match=remedies):
        start_broker(tmp_path, prefer=prefer)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "a.name"])
def test_an_open_broker_is_not_shown_to_the_network(tmp_path: Path, host: str) -> None:
    with pytest.raises(StartError, match="without access rules"):
        start_broker(tmp_path, host=host)


def test_mosquitto_is_told_to_forget_everything_and_not_to_wait() -> None:
    config = mosquitto_config("127.0.0.1", 1883).splitlines()

    assert "listener 1883 127.0.0.1" in config
    assert "persistence false" in config
    assert "set_tcp_nodelay true" in config
    assert "max_inflight_messages 200" in config
