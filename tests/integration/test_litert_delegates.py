"""A delegate that is there and does not work: given up at the start, or later, for the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert

from fakes.models import INPUTS, OUTPUTS, WEIGHTS, model_folder
from fakes.tflite_files import linear_tflite
from runtime.adapters import litert_engine
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.engines import load_member
from runtime.adapters.fallback_backend import FallbackBackend
from runtime.adapters.litert_backend import LiteRtBackend
from runtime.adapters.litert_engine import Package
from runtime.errors import ArtifactError

EXAMPLE = np.array([[1, 2, 3]], np.float32)


class Device:
    """LiteRT with a device whose delegate is a stand-in: its operators run on the CPU."""

    def __init__(self) -> None:
        self.fails_at: str = ""
        self.OpResolverType = litert.OpResolverType

    def load_delegate(self, library: str) -> SimpleNamespace:
        return SimpleNamespace(library=library)

    def Interpreter(self, **options: Any) -> Any:  # noqa: N802 - LiteRT's name
        delegates = options.pop("experimental_delegates", [])
        made = litert.Interpreter(**options)
        if delegates:
            for step in ("allocate_tensors", "invoke"):
                setattr(made, step, self._watched(step, getattr(made, step)))
        return made

    def _watched(self, name: str, step: Any) -> Any:
        def call() -> None:
            if self.fails_at == name:
                raise RuntimeError("the device has gone")
            step()

        return call


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device that this machine does not have."""
    made = Device()
    package = Package("ai-edge-litert", "2.0", made)
    monkeypatch.setattr(litert_engine, "find_package", lambda: package)
    monkeypatch.setattr(litert_engine, "_check_delegate", lambda _: None)
    return made


def loaded(contents: bytes) -> LiteRtBackend:
    return LiteRtBackend.load(
        contents, source="tiny.tflite", expected=(INPUTS, OUTPUTS), delegate="edgetpu"
    )


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected)


def test_a_delegate_that_works_is_used(device: Device) -> None:
    backend = loaded(linear_tflite())

    same(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)
    assert backend.report.taken == ("EdgeTPU", "CPU")
    assert backend.report.is_accelerated
    assert not device.fails_at


@pytest.mark.parametrize("step", ["allocate_tensors", "invoke"])
def test_one_that_fails_at_the_start_is_given_up_for_the_cpu(device: Device, step: str) -> None:
    device.fails_at = step

    backend = loaded(linear_tflite())

    same(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)
    assert backend.report.taken == ("XNNPACK", "CPU")
    assert "EdgeTPU: " in str(backend.report)
    assert "the device has gone" in str(backend.report)


def test_a_file_that_only_the_device_runs_is_refused_without_it(device: Device) -> None:
    device.fails_at = "invoke"

    with pytest.raises(ArtifactError, match="the device has gone"):
        loaded(linear_tflite() + b"edgetpu-custom-op")


def test_one_that_fails_later_is_given_up_once(device: Device, tmp_path: Path) -> None:
    model = model_folder(tmp_path, {"tiny.tflite": linear_tflite()})
    told: list[object] = []
    backend = load_member(model, "tiny", EngineOptions(delegate="edgetpu"))
    assert isinstance(backend, FallbackBackend)
    backend.on_fallback = lambda *said: told.append(said)

    same(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)
    device.fails_at = "invoke"
    for _ in range(3):
        same(backend.run({"x": EXAMPLE})["logits"], EXAMPLE @ WEIGHTS)

    assert len(told) == 1
    assert backend.report.taken == ("XNNPACK", "CPU")
    backend.close()
