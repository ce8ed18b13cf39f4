from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.adapters.service_manager import ServiceManager, telling_manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30.0)
        yield listening


def said(listening: socket.socket) -> list[str]:
    """What has come so far."""
    listening.setblocking(False)
    states: list[str] = []
    while True:
        try:
            states.append(listening.recv(100).decode())
        except BlockingIOError:
            return states


async def test_a_service_says_that_it_is_ready_feeds_the_watchdog_and_says_that_it_stops(
    manager: socket.socket,
) -> None:
    told: list[str] = []
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "25000"}
    async with telling_manager(environment) as telling:
        while told.count("WATCHDOG=1") < 4:
            told += said(manager)
            await asyncio.sleep(0.001)
        telling.stopping()
    told += said(manager)
    await asyncio.sleep(0)

    assert told[0] == "READY=1"
    assert told[-1] == "STOPPING=1"
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "watchdog"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "many"},
        {"NOTIFY_SOCKET": "@nobody-listens-there", "WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
async def test_where_nobody_listens_a_service_runs_all_the_same(
    environment: dict[str, str],
) -> None:
    async with telling_manager(environment) as telling:
        telling.stopping()

        assert telling.watchdog_s == 0.0


def test_an_abstract_socket_is_one() -> None:
    name = f"tierwise-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).tell("READY=1")

        assert said(listening) == ["READY=1"]


async def test_an_agent_as_a_process_tells_its_manager(
    manager: socket.socket, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge_agent", "--set", "agent=a", "--set", "region=r"),
        *("--set", "http.port=0", "--set", f"state.folder={tmp_path / 'state'}"),
        *("--set", "escalation.enabled=false"),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "NOTIFY_SOCKET": manager.getsockname(),
            "WATCHDOG_USEC": "30000000",
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        told: list[str] = []
        until_s = time.monotonic() + 15
        while "READY=1" not in told and time.monotonic() < until_s:
            told.append((await asyncio.to_thread(manager.recv, 100)).decode())
        process.terminate()
        await asyncio.wait_for(process.wait(), 15)
        told += said(manager)
    finally:
        if process.returncode is None:
            process.kill()

    assert (told[0], told[-1]) == ("READY=1", "STOPPING=1")
    assert process.returncode == 0
