"""An accelerator that fails while it works is given up once, for the same model on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import structlog

from fakes.models import INPUTS, OUTPUTS, WEIGHTS, linear_model
from runtime.adapters.fallback_backend import FallbackBackend
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.core.providers import CPU, PROVIDERS, EngineReport
from runtime.errors import ArtifactError, BackendError
from runtime.messages import Tensors, TensorSpec, Tier

EXAMPLE = np.array([[1, 2, 3]], np.float32)
CUDA = PROVIDERS["cuda"]
ON_CUDA = EngineReport("onnxruntime", ("cuda",), (CUDA, CPU))


@dataclass
class Accelerator:
    """Stands for a session on an accelerator: it is there, and breaks when it is told to."""

    is_broken: bool = False
    is_closed: bool = False
    runs: list[int] = field(default_factory=list)
    inputs: tuple[TensorSpec, ...] = INPUTS
    outputs: tuple[TensorSpec, ...] = OUTPUTS
    typical_ms: float = 0.5
    report: EngineReport = ON_CUDA

    def run(self, inputs: Tensors) -> Tensors:
        self.runs.append(1)
        if self.is_closed:
            raise BackendError("it is closed")
        if self.is_broken or inputs["x"].shape[1] != 3:
            raise BackendError("CUDA error 700: an illegal memory access")
        return {"logits": np.asarray(inputs["x"], np.float32) @ WEIGHTS}

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Setting:
    """The backend under test and what it does."""

    accelerator: Accelerator = field(default_factory=Accelerator)
    loads: list[OnnxBackend] = field(default_factory=list)
    told: list[tuple[str, EngineReport]] = field(default_factory=list)

    def backend(self, load: Callable[[], OnnxBackend] | None = None) -> FallbackBackend:
        return FallbackBackend(
            "m", self.accelerator, load or self.load, lambda *said: self.told.append(said)
        )

    def load(self) -> OnnxBackend:
        self.loads.append(OnnxBackend.load(linear_model(), source="m.onnx"))
        return self.loads[-1]


def answer(backend: FallbackBackend) -> None:
    np.testing.assert_array_equal(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)


def test_while_it_works_nothing_else_is_loaded() -> None:
    setting = Setting()
    backend = setting.backend()

    answer(backend)

    assert not setting.loads
    assert not setting.told
    assert (backend.inputs, backend.outputs, backend.typical_ms) == (INPUTS, OUTPUTS, 0.5)
    assert backend.report.is_accelerated


def test_a_failure_is_answered_by_the_cpu_and_told_once() -> None:
    setting = Setting()
    backend = setting.backend()
    setting.accelerator.is_broken = True

    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            answer(backend)

    assert len(setting.accelerator.runs) == len(setting.loads) == len(setting.told) == 1
    assert setting.accelerator.is_closed
    assert [one["event"] for one in logs] == ["model.engine_fell_back"]
    assert backend.report.taken == (CPU,)
    assert backend.report.wished == ("cuda",)
    assert "illegal memory access" in str(backend.report)
    assert backend.typical_ms == setting.loads[0].typical_ms


def test_inputs_that_fail_on_the_cpu_too_change_nothing() -> None:
    setting = Setting()
    backend = setting.backend()

    for _ in range(3):
        with pytest.raises(BackendError, match=r"m\.onnx failed to run"):
            backend.run({"x": np.zeros((1, 4), np.float32)})

    answer(backend)
    assert setting.told == []
    assert len(setting.loads) == 1
    assert backend.report.is_accelerated


def test_a_model_that_the_cpu_cannot_load_fails_with_both_reasons() -> None:
    setting = Setting()
    setting.accelerator.is_broken = True
    tries: list[int] = []

    def load() -> OnnxBackend:
        tries.append(1)
        raise ArtifactError("the file is gone")

    backend = setting.backend(load)
    for _ in range(3):
        with pytest.raises(BackendError, match="illegal memory access; and not on the CPU: the f"):
            backend.run({"x": EXAMPLE})

    assert len(tries) == 1


def test_a_failure_on_the_cpu_after_that_is_just_one() -> None:
    setting = Setting()
    backend = setting.backend()
    setting.accelerator.is_broken = True
    answer(backend)

    with pytest.raises(BackendError, match=r"m\.onnx failed to run"):
        backend.run({"x": np.zeros((1, 4), np.float32)})

    assert len(setting.loads) == len(setting.told) == 1


def test_threads_that_fail_together_fall_back_once() -> None:
    setting = Setting()
    backend = setting.backend()
    setting.accelerator.is_broken = True
    together = threading.Barrier(4)

    def ask() -> None:
        together.wait()
        answer(backend)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask) for _ in range(4)]:
            done.result(timeout=10)

    assert len(setting.loads) == len(setting.told) == 1


@pytest.mark.parametrize("is_broken", [False, True])
def test_closed_it_loads_nothing_any_more(*, is_broken: bool) -> None:
    setting = Setting()
    backend = setting.backend()
    setting.accelerator.is_broken = is_broken
    if is_broken:
        answer(backend)
    num_loads = len(setting.loads)

    backend.close()
    backend.close()

    with pytest.raises(BackendError, match="closed"):
        backend.run({"x": EXAMPLE})
    assert len(setting.loads) == num_loads


def test_metrics_say_what_runs_a_member_and_that_it_was_given_up() -> None:
    setting, metrics = Setting(), TierMetrics(Tier.EDGE)
    backend = setting.backend()
    backend.on_fallback = metrics.count_engine_fallback
    metrics.set_engine("m", backend.report)
    setting.accelerator.is_broken = True

    answer(backend)

    text = metrics.render()[0].decode()
    assert 'tierwise_edge_engine_fallbacks_total{member="m"} 1.0' in text
    infos = [line for line in text.splitlines() if line.startswith("tierwise_edge_engine_info{")]
    assert len(infos) == 1
    assert f'runs_on="{CPU}"' in infos[0]
