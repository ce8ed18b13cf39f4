"""A service as an operating system sees it: signals in, exit codes and lines out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

HEAD = """
import asyncio, os, subprocess, sys, time
from runtime.common_settings import LogSettings
from runtime.errors import ArtifactError, BackendError, SettingsError, StartError
from runtime.logs import configure_logs
from runtime.supervise import run_service

async def service(stop):
    configure_logs(LogSettings(), tier="edge")
"""
TAIL = "\nsys.exit(run_service(service, {options}))\n"
READY = "print('ready', flush=True)\n"


def program(body: str, options: str = "") -> str:
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return HEAD + lines + TAIL.format(options=options)


def run(body: str, options: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program(body, options)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@contextmanager
def running(source: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_the_program_drain(number: int) -> None:
    body = f"{READY}await stop.wait()\nawait asyncio.sleep(0.05)\nprint('drained', flush=True)"

    with running(program(body)) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=10)

    assert (process.returncode, out, err) == (0, "drained\n", "")


def test_the_second_signal_ends_it_at_once_even_while_the_loop_is_blocked() -> None:
    body = f"{READY}await stop.wait()\nprint('stuck', flush=True)\ntime.sleep(60)"

    with running(program(body)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)

    assert process.returncode == 128 + signal.SIGTERM


def test_a_drain_that_takes_too_long_is_cut_off() -> None:
    body = f"{READY}await stop.wait()\nawait asyncio.sleep(60)"

    with running(program(body, "drain_s=0.1")) as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=10)

    assert process.returncode == 1
    assert "service.drain_timed_out" in err


def test_a_program_that_ends_by_itself_is_no_error() -> None:
    assert run("return").returncode == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [("SettingsError", 2), ("StartError", 3), ("ArtifactError", 3), ("BackendError", 1)],
)
def test_our_errors_are_one_line_and_an_exit_code(error: str, code: int) -> None:
    done = run(f"raise {error}('port 1883 is taken: choose another')")

    assert done.returncode == code
    assert done.stderr == "tierwise: port 1883 is taken: choose another\n"


def test_an_error_out_of_a_task_group_is_told_the_same_way() -> None:
    done = run(
        """
        async def fail():
            raise StartError("no broker")
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(), name="part")
        """
    )

    assert (done.returncode, done.stderr) == (3, "tierwise: no broker\n")


def test_an_unexpected_error_is_logged_with_its_traceback_and_told_in_one_line() -> None:
    done = run("raise ValueError('boom')")

    log, told = done.stderr.splitlines()
    assert done.returncode == 1
    assert '"service.crashed"' in log
    assert '"frames"' in log
    assert told == "tierwise: unexpected ValueError: boom (the traceback is in the log)"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_service_stops_when_its_parent_dies() -> None:
    child = program(
        "print(os.getpid(), flush=True)\nawait stop.wait()", "parent_pid=int(sys.argv[1])"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())],\n"
        "                         stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline().strip(), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=10)

    assert is_gone(pid)


def test_a_service_whose_parent_died_before_it_started_stops_too() -> None:
    done = run("await stop.wait()", "parent_pid=1 if os.getppid() != 1 else 2")

    assert done.returncode == 0


def is_gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False
