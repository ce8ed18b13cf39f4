"""Every backend behind the same port: ONNX Runtime, LiteRT, a server, and processes of their own.

All of them have the same model, ``logits = x @ WEIGHTS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fakes.models import INPUTS, OUTPUTS, WEIGHTS, linear_model, manifest_of, model_folder
from fakes.oip_servers import agent_server
from fakes.tflite_files import linear_tflite
from runtime.adapters.artifacts import ModelFolder, open_model, write_model
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.engines import load_member
from runtime.adapters.model_process import ProcessBackend, ProcessOptions
from runtime.adapters.model_worker import TimedBackend
from runtime.errors import BackendError
from runtime.manifest import Member
from runtime.messages import Tensors

EXAMPLE = np.array([[1, 2, 3]], np.float32)
NUM_RUNS = 1000
# What an allocator may keep for itself; a leak of a batch a run would be far more.
MAX_GROWTH_BYTES = 12 << 20
Opened = Callable[[], TimedBackend]


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _onnx(folder: Path, _: ExitStack) -> ModelFolder:
    return model_folder(folder / "tiny", {"tiny.onnx": linear_model()})


def _litert(folder: Path, _: ExitStack) -> ModelFolder:
    return model_folder(folder / "tiny", {"tiny.tflite": linear_tflite()})


def _oip(folder: Path, stack: ExitStack) -> ModelFolder:
    served = model_folder(folder / "served")
    url = stack.enter_context(agent_server(served.folder, folder / "state"))
    members = (Member("tiny", url=url, model="tiny"),)
    write_model(folder / "tiny", manifest_of({}, members=members), {})
    return open_model(folder / "tiny")


def _inline(model: ModelFolder) -> TimedBackend:
    return load_member(model, "tiny", EngineOptions(run_timeout_ms=10_000))


def _process(model: ModelFolder) -> TimedBackend:
    return ProcessBackend(model, "tiny", ProcessOptions(run_timeout_ms=10_000))


KINDS = {
    "onnx": (_onnx, _inline),
    "litert": (_litert, _inline),
    "oip": (_oip, _inline),
    "onnx in a process": (_onnx, _process),
    "litert in a process": (_litert, _process),
}


@pytest.fixture(scope="module", params=KINDS)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    """Makes backends of one kind, and closes them."""
    make_model, load = KINDS[request.param]
    with ExitStack() as stack:
        model = make_model(tmp_path_factory.mktemp("model"), stack)

        def open_() -> TimedBackend:
            backend = load(model)
            stack.callback(backend.close)
            return backend

        yield open_


@pytest.fixture(scope="module")
def backend(opened: Opened) -> TimedBackend:
    return opened()


def test_it_says_what_it_takes_and_gives(backend: TimedBackend) -> None:
    assert backend.inputs == INPUTS
    assert backend.outputs == OUTPUTS
    assert 0 < backend.typical_ms < 5000
    assert backend.report.engine
    assert not backend.report.is_accelerated


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_it_computes_every_example_of_a_batch(backend: TimedBackend, batch: int) -> None:
    inputs = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)

    outputs = backend.run({"x": inputs})

    assert list(outputs) == ["logits"]
    assert outputs["logits"].dtype == np.float32
    same(outputs["logits"], inputs @ WEIGHTS)


def test_outputs_belong_to_the_caller(backend: TimedBackend) -> None:
    first = backend.run({"x": EXAMPLE})["logits"]
    backend.run({"x": -EXAMPLE})
    kept = first.copy()
    first[:] = 0

    same(kept, EXAMPLE @ WEIGHTS)
    same(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)


def test_threads_get_their_own_answers(backend: TimedBackend) -> None:
    def ask(number: int) -> None:
        inputs = np.full((1 + number % 3, 3), number, np.float32)
        same(backend.run({"x": inputs})["logits"], inputs @ WEIGHTS)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask, number) for number in range(80)]:
            done.result(timeout=15)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"y": EXAMPLE},
        {"x": EXAMPLE, "more": EXAMPLE},
        {"x": EXAMPLE.astype(np.float64)},
        {"x": EXAMPLE.astype(np.int32)},
        {"x": np.zeros((1, 4), np.float32)},
        {"x": np.zeros(3, np.float32)},
        {"x": np.zeros((1, 1, 3), np.float32)},
    ],
    ids=["none", "other name", "too many", "double", "integers", "size", "rank", "more ranks"],
)
def test_inputs_that_do_not_fit_fail_alone(backend: TimedBackend, inputs: Tensors) -> None:
    with pytest.raises(BackendError):
        backend.run(inputs)

    same(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_never_comes_back_as_one(backend: TimedBackend, number: float) -> None:
    """An engine computes with it; a server may refuse it."""
    inputs = EXAMPLE.copy()
    inputs[0, 1] = number

    try:
        outputs = backend.run({"x": inputs})["logits"]
    except BackendError:
        outputs = np.array(np.nan)

    assert not np.isfinite(outputs).all()
    same(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)


def test_a_closed_one_says_so_and_closes_twice(opened: Opened) -> None:
    backend = opened()
    backend.run({"x": EXAMPLE})

    backend.close()
    backend.close()

    with pytest.raises(BackendError, match="closed"):
        backend.run({"x": EXAMPLE})


def test_closing_does_no_harm_to_runs_in_other_threads(opened: Opened) -> None:
    backend = opened()

    def ask() -> int:
        answers = 0
        try:
            while True:
                found = backend.run({"x": EXAMPLE})["logits"]
                same(found, EXAMPLE @ WEIGHTS)
                answers += 1
        except BackendError:
            return answers

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        for _ in range(20):
            try:
                backend.run({"x": EXAMPLE})
            except BackendError:  # two others are before it
                continue
        backend.close()

        assert all(one.result(timeout=15) >= 0 for one in asking)


def test_a_thousand_runs_take_no_more_memory_than_some(backend: TimedBackend) -> None:
    inputs = np.ones((7, 3), np.float32)
    for _ in range(NUM_RUNS // 4):
        backend.run({"x": inputs})
    before = _resident_bytes()

    for _ in range(NUM_RUNS):
        backend.run({"x": inputs})

    assert _resident_bytes() - before < MAX_GROWTH_BYTES


def _resident_bytes() -> int:
    me = psutil.Process()
    return sum(one.memory_info().rss for one in (me, *me.children()))
