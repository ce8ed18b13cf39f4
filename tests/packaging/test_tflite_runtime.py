"""LiteRT's predecessor beside numpy 1, as it is on devices that nobody can upgrade."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from fakes.tflite_files import linear_tflite, quantized_tflite
from model_zoo.catalog import bundled_model, bundled_pictures, bundled_task
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members

# It has no wheels for newer ones, and will have none.
NEWEST_PYTHON = (3, 11)
NUM_PICTURES = 1000


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    sys.version_info[:2] > NEWEST_PYTHON, reason="tflite-runtime has no wheel for this Python"
)
def test_the_old_package_fulfils_the_contract_of_backends(tmp_path: Path) -> None:
    python = _environment(tmp_path / "venv")
    _write_files(tmp_path)

    done = subprocess.run(
        [python, Path(__file__).with_name("litert_contract.py"), tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"]} | _sources(),
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert "fulfilled by tflite-runtime 2." in done.stdout


def _environment(folder: Path) -> Path:
    """Python with tflite-runtime, numpy 1 and our wheel where there is one, else our sources."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
    ]
    wheel = os.environ.get("WHEEL_UNDER_TEST")
    steps = [[*install, "tflite-runtime", "numpy<2", "msgspec"]]
    steps += [[*install, "--no-deps", wheel]] if wheel else []
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False, timeout=200)
        if done.returncode:
            said = done.stderr[-2000:]
            if os.environ.get("CI"):
                pytest.fail(f"tflite-runtime cannot be installed: {said}")
            pytest.skip(f"tflite-runtime cannot be installed here: {said}")
    return python


def _sources() -> dict[str, str]:
    if "WHEEL_UNDER_TEST" in os.environ:
        return {}
    return {"PYTHONPATH": str(Path(__file__).parents[2])}


def _write_files(folder: Path) -> None:
    (folder / "linear.tflite").write_bytes(linear_tflite())
    (folder / "quantized.tflite").write_bytes(quantized_tflite())
    shipped = bundled_task() / "edge-tflite" / "edge.tflite"
    (folder / "edge.tflite").write_bytes(shipped.read_bytes())
    pictures = bundled_pictures("test").pictures[:NUM_PICTURES]
    pixels = pictures.astype(np.float32) / np.float32(255)
    (onnx,) = load_members(open_model(bundled_model("edge")))
    labels = onnx.run({"image": pixels})["logits"].argmax(1)
    np.savez(folder / "expected.npz", pixels=pixels, labels=labels)
