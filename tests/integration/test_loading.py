"""A tier's members get their engines from the manifest and the settings, and it says which."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from fakes.models import WEIGHTS, linear_model, model_folder
from fakes.tflite_files import linear_tflite
from runtime.adapters.clock import SystemClock
from runtime.adapters.metrics import TierMetrics
from runtime.common_settings import ModelSettings
from runtime.core.providers import CPU
from runtime.deadline import Deadline
from runtime.exchange.loading import load_model
from runtime.messages import Tier

EXAMPLE = np.array([[1, 2, 3]], np.float32)


async def answered(folder: Path, metrics: TierMetrics, **settings: Any) -> Any:
    """What the model says of one example."""
    clock = SystemClock()
    model = await load_model(
        ModelSettings(folder=str(folder), **settings), Tier.EDGE, clock, metrics
    )
    try:
        result = await model.infer({"x": EXAMPLE}, Deadline.after(clock.monotonic_s(), 10_000))
        return result.outputs["logits"]
    finally:
        await asyncio.to_thread(model.close)


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize("name", ["tiny.onnx", "tiny.tflite"])
async def test_both_kinds_of_files_run_here_and_in_processes(
    tmp_path: Path, name: str, isolation: str
) -> None:
    contents = linear_model() if name.endswith("onnx") else linear_tflite()
    metrics = TierMetrics(Tier.EDGE)
    model_folder(tmp_path, {name: contents})

    with structlog.testing.capture_logs() as logs:
        logits = await answered(tmp_path, metrics, isolation=isolation)

    np.testing.assert_allclose(logits, EXAMPLE @ WEIGHTS)
    assert [one["event"] for one in logs] == ["model.engine_chosen"]
    engine = "onnxruntime" if name.endswith("onnx") else "ai-edge-litert"
    text = metrics.render()[0].decode()
    assert f'tierwise_edge_engine_info{{engine="{engine} ' in text
    assert "engine_fallbacks_total{" not in text


@pytest.mark.parametrize("isolation", ["inline", "process"])
async def test_a_wish_that_cannot_be_had_is_told_and_counted(
    tmp_path: Path, isolation: str
) -> None:
    metrics = TierMetrics(Tier.EDGE)
    model_folder(tmp_path)

    with structlog.testing.capture_logs() as logs:
        logits = await answered(
            tmp_path, metrics, isolation=isolation, providers="cuda, OpenVINOExecutionProvider"
        )

    np.testing.assert_allclose(logits, EXAMPLE @ WEIGHTS)
    assert [one["event"] for one in logs] == ["model.engine_chosen", "model.engine_not_used"]
    assert "CUDAExecutionProvider: it is not in this onnxruntime" in logs[1]["report"]
    text = metrics.render()[0].decode()
    assert 'tierwise_edge_engine_fallbacks_total{member="tiny"} 1.0' in text
    assert f'runs_on="{CPU}"' in text


async def test_a_delegate_that_cannot_be_had_is_told_too(tmp_path: Path) -> None:
    model_folder(tmp_path, {"tiny.tflite": linear_tflite()})

    with structlog.testing.capture_logs() as logs:
        await answered(tmp_path, TierMetrics(Tier.EDGE), delegate="/no/such.so")

    assert "/no/such.so" in logs[1]["report"]
