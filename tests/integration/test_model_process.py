"""A model's process: whatever it does, its callers get an error and the next process starts.

Real processes with a real, tiny model.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import structlog

from fakes.models import INPUTS, OUTPUTS, WEIGHTS, linear_model, model_folder
from fakes.rogue_models import (
    EXIT,
    FAIL,
    GARBAGE,
    LEAK,
    LEAP,
    LOADER,
    SEGFAULT,
    TALK,
    WEDGE,
    example,
)
from fakes.waiting import eventually_sync
from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.model_process import ProcessBackend, ProcessOptions, start_members
from runtime.core.providers import CPU, EngineReport
from runtime.core.restarts import Restarts
from runtime.errors import ArtifactError, BackendError, StartError
from runtime.ports import Backend

ROGUES = LOADER.partition(":")[0]
Opened = Callable[..., ProcessBackend]


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    return model_folder(tmp_path / "tiny")


@pytest.fixture
def opened(model: ModelFolder) -> Iterator[Opened]:
    """Makes backends whose model misbehaves when it is told to; closes them."""
    with ExitStack() as stack:

        def open_(**options: Any) -> ProcessBackend:
            usual = ProcessOptions(loader=LOADER, run_timeout_ms=10_000.0)
            backend = ProcessBackend(model, "tiny", replace(usual, **options))
            stack.callback(backend.close)
            return backend

        yield open_


def is_gone(pid: int | None) -> bool:
    return pid is None or not psutil.pid_exists(pid)


def comes_back(backend: ProcessBackend, before: int | None) -> None:
    """Waits for the next process and has it answer."""
    eventually_sync(lambda: backend.pid not in (None, before))
    np.testing.assert_array_equal(
        backend.run(example())["logits"],
        example()["x"] @ WEIGHTS,  # type: ignore[operator]
    )
    assert is_gone(before)


def test_it_computes_what_the_model_says_in_another_process(model: ModelFolder) -> None:
    made = ProcessBackend(model, "tiny")
    backend: Backend = made
    try:
        outputs = backend.run(example(1))
        many = backend.run({"x": np.ones((5000, 3), np.float32)})

        assert made.pid not in (None, os.getpid())
        assert (backend.inputs, backend.outputs) == (INPUTS, OUTPUTS)
        assert 0 < made.typical_ms < 5000
        np.testing.assert_array_equal(outputs["logits"], np.array([[5, 8]], np.float32))
        assert many["logits"].shape == (5000, 2)
        outputs["logits"][:] = 0  # the caller's own
    finally:
        made.close()


def test_an_accelerator_that_is_given_up_in_there_is_told_here(opened: Opened) -> None:
    told: list[tuple[str, EngineReport]] = []
    backend = opened(
        loader=f"{ROGUES}:load_accelerated", on_fallback=lambda *said: told.append(said)
    )
    assert backend.report.is_accelerated
    assert told == []

    for what in (FAIL, FAIL, 1):
        np.testing.assert_array_equal(
            backend.run(example(what))["logits"],
            example(what)["x"] @ WEIGHTS,  # type: ignore[operator]
        )

    assert [member for member, _ in told] == ["tiny"]
    assert backend.report == told[0][1]
    assert backend.report.taken == (CPU,)
    assert "the model is broken" in str(backend.report)


@pytest.mark.parametrize(
    ("what", "complaint", "cause"),
    [
        (WEDGE, r"no answer within .* its process was ended", "wedged"),
        (EXIT, "ended while it worked", "crashed"),
        (SEGFAULT, "ended while it worked", "crashed"),
        (GARBAGE, "gave no frame", "garbage"),
    ],
    ids=["wedge", "exit", "segfault", "garbage"],
)
def test_a_process_that_is_lost_fails_its_request_and_is_started_again(
    opened: Opened, what: int, complaint: str, cause: str
) -> None:
    ended: list[tuple[str, str]] = []
    backend = opened(run_timeout_ms=1000.0, on_end=lambda *said: ended.append(said))
    before = backend.pid

    with pytest.raises(BackendError, match=complaint):
        backend.run(example(what))

    comes_back(backend, before)
    assert ended == [("tiny", cause)]


def test_what_the_log_says_of_an_end(opened: Opened) -> None:
    with structlog.testing.capture_logs() as lines:
        backend = opened()
        before = backend.pid
        with pytest.raises(BackendError):
            backend.run(example(EXIT))
        comes_back(backend, before)

    told = {line["event"]: line for line in lines}
    assert told["model.process_ended"]["how"] == "exit code 7"
    assert told["model.process_ended"]["said"] == "out of cheese"
    assert told["model.process_ended"]["restart_in_s"] == 0.1
    assert told["model.process_started"]["pid"] == backend.pid


def test_a_leaking_model_is_started_again_when_it_is_over_its_limit(opened: Opened) -> None:
    ended: list[str] = []
    backend = opened(memory_limit_mb=150, on_end=lambda _, cause: ended.append(cause))
    before = backend.pid

    def leaks() -> bool:
        try:
            backend.run(example(LEAK))
        except BackendError:
            return True
        return backend.pid != before

    eventually_sync(leaks)

    comes_back(backend, before)
    assert ended == ["memory"]


def test_a_leap_far_over_the_limit_is_not_granted(opened: Opened) -> None:
    backend = opened(memory_limit_mb=150)

    with pytest.raises(BackendError, match="no memory"):
        backend.run(example(LEAP))


def test_a_model_that_fails_keeps_its_process(opened: Opened) -> None:
    backend = opened()
    before = backend.pid

    with pytest.raises(BackendError, match="the model is broken"):
        backend.run(example(FAIL))
    with pytest.raises(BackendError, match="failed to run"):
        backend.run({"y": np.zeros((1, 3), np.float32)})
    with pytest.raises(BackendError, match="cannot take this"):
        backend.run({"x": np.zeros((1, 3), np.complex64)})

    assert backend.run(example())["logits"].shape == (1, 2)
    assert backend.pid == before


def test_a_model_that_talks_a_lot_is_not_held_up(opened: Opened) -> None:
    backend = opened()

    assert backend.run(example(TALK))["logits"].shape == (1, 2)


def test_while_a_process_is_not_back_requests_fail_at_once(opened: Opened) -> None:
    backend = opened(restarts=lambda: Restarts(min_s=60, max_s=60))
    with pytest.raises(BackendError):
        backend.run(example(EXIT))
    eventually_sync(lambda: backend.pid is None)

    began_s = time.monotonic()
    with pytest.raises(BackendError, match="being started again"):
        backend.run(example())
    backend.close()

    assert time.monotonic() - began_s < 5
    with pytest.raises(BackendError, match="is closed"):
        backend.run(example())


def test_a_process_that_dies_at_its_start_is_an_error_at_once(opened: Opened) -> None:
    """Another runner loops for ever when its model's process dies at the start.

    (Edge Impulse's Linux runner: ``while not exists(socket) or poll() is not None``.) The time
    counts from the death: before it, Python has to start at all. The clock is the system's.
    """
    with pytest.raises(StartError) as raised:
        opened(loader=f"{ROGUES}:load_dies")
    now_s = time.monotonic()

    said = re.search(
        r"\(exit code 127\).*libmissing\.so.*died at (\S+)", str(raised.value), re.DOTALL
    )
    assert said is not None
    assert now_s - float(said[1]) < 5
    assert not children()


@pytest.mark.parametrize(
    ("loader", "complaint"),
    [
        (f"{ROGUES}:load_raises", "ZeroDivisionError: a bug in a loader"),
        ("fakes.no_such_module:load", "No module named"),
    ],
)
def test_a_bug_in_the_process_is_told(opened: Opened, loader: str, complaint: str) -> None:
    with pytest.raises(StartError, match=complaint):
        opened(loader=loader)

    assert not children()


def test_a_machine_that_gives_no_process_is_told(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    with pytest.raises(StartError, match=r"no process for .*No such file"):
        opened()


def test_a_process_that_is_never_ready_is_given_up(opened: Opened) -> None:
    with pytest.raises(StartError, match=r"not ready within 1\.5 s"):
        opened(loader=f"{ROGUES}:load_wedges", start_timeout_s=1.5)

    assert not children()


def test_a_damaged_model_is_an_artifact_error_as_without_a_process(model: ModelFolder) -> None:
    (model.folder / "tiny.onnx").write_bytes(linear_model()[:-10])

    with pytest.raises(ArtifactError, match="truncated"):
        ProcessBackend(model, "tiny")

    assert not children()


def test_closing_ends_the_process_also_while_it_works(opened: Opened) -> None:
    backend = opened(run_timeout_ms=60_000.0)
    pid = backend.pid
    failed: list[BaseException] = []

    def run() -> None:
        try:
            backend.run(example(WEDGE))
        except BackendError as error:
            failed.append(error)

    caller = threading.Thread(target=run)
    caller.start()
    time.sleep(0.1)
    backend.close()
    backend.close()
    caller.join(5)

    assert len(failed) == 1
    assert is_gone(pid)
    assert not children()


def test_closing_does_not_wait_for_a_process_that_starts(opened: Opened) -> None:
    backend = opened()
    # From now on every start takes an hour.
    backend._start = msgspec.structs.replace(backend._start, loader=f"{ROGUES}:load_wedges")
    with pytest.raises(BackendError):
        backend.run(example(EXIT))
    eventually_sync(lambda: backend.pid is None)
    time.sleep(0.5)

    began_s = time.monotonic()
    backend.close()

    assert time.monotonic() - began_s < 10
    assert not children()


def test_only_so_many_callers_stand_in_line(opened: Opened) -> None:
    backend = opened(run_timeout_ms=2000.0)
    said: list[str] = []

    def run() -> None:
        try:
            backend.run(example(WEDGE))
        except BackendError as error:
            said.append(str(error))

    callers = [threading.Thread(target=run) for _ in range(30)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)

    assert len(said) == 30
    assert sum("callers in line" in text for text in said) == 14


def test_all_members_start_or_none_stays(tmp_path: Path) -> None:
    files = {"a.onnx": linear_model(), "b.onnx": linear_model(-WEIGHTS)}
    model = model_folder(tmp_path / "two", files)
    first, second = start_members(model, ProcessOptions())
    one, other = (backend.run(example())["logits"].tolist() for backend in (first, second))
    assert one == [[-number for number in row] for row in other]
    first.close()
    second.close()
    assert not children()

    (model.folder / "b.onnx").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"b\.onnx"):
        start_members(model, ProcessOptions())
    assert not children()


PARENT = """\
import sys, threading
from pathlib import Path
from fakes.rogue_models import LOADER, WEDGE, example
from runtime.adapters.artifacts import open_model
from runtime.adapters.model_process import ProcessBackend, ProcessOptions
backend = ProcessBackend(
    open_model(Path(sys.argv[1])), "tiny", ProcessOptions(loader=LOADER, run_timeout_ms=60_000.0)
)
print(backend.pid, flush=True)
backend.run(example(WEDGE if sys.argv[2] == "busy" else 0))
threading.Event().wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
@pytest.mark.parametrize("how", ["busy", "idle"])
def test_a_process_ends_with_a_parent_that_was_killed(model: ModelFolder, how: str) -> None:
    path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model.folder), how],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        time.sleep(0.1)
        parent.send_signal(signal.SIGKILL)
        parent.wait(5)

    eventually_sync(lambda: is_gone(pid) or psutil.Process(pid).status() == "zombie")


def test_a_terminal_or_supervisor_that_signals_everyone_leaves_it_to_the_parent(
    opened: Opened,
) -> None:
    backend = opened()
    assert backend.pid is not None

    os.kill(backend.pid, signal.SIGTERM)
    os.kill(backend.pid, signal.SIGINT)

    assert backend.run(example())["logits"].shape == (1, 2)


def children() -> list[psutil.Process]:
    """Processes of models that were left behind."""
    mine = psutil.Process().children(recursive=True)
    return [one for one in mine if any("model_worker" in part for part in one.cmdline())]
