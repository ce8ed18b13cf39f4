"""Students of pictures: what is a picture, what is said without PyTorch, and what is learned."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tierwise.cli import main

HAS_TORCH = importlib.util.find_spec("torch") is not None
TEACHER = "model_zoo/bundled/fashion/edge"


def distill(folder: Path, *words: str) -> int:
    data = ("--data", "bundled:test", "--part", "0:400", "--output", str(folder))
    return main(["models", "distill", TEACHER, *data, "--kind", "picture", *words])


@pytest.mark.skipif(HAS_TORCH, reason="PyTorch is here")
def test_without_pytorch_it_is_said_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])

    assert distill(tmp_path / "student", "--epochs", "1") == 3

    assert "install tierwise[zoo]" in capsys.readouterr().err
    assert not (tmp_path / "student").exists()


@pytest.mark.nightly
@pytest.mark.timeout(300)
@pytest.mark.skipif(not HAS_TORCH, reason="trains with PyTorch, which is not here")
def test_a_student_is_a_model_that_tiers_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_zoo.shrink.picture_student import layout_of  # noqa: PLC0415 - needs PyTorch
    from runtime.errors import StartError  # noqa: PLC0415

    monkeypatch.chdir(Path(__file__).parents[2])
    assert distill(tmp_path / "student", "--epochs", "2", "--hidden", "8,16") == 0
    (path,) = (tmp_path / "student").glob("*.onnx")
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(path))
    (logits,) = session.run(None, {"image": np.zeros((3, 28, 28), np.float32)})
    assert logits.shape == (3, 10)
    assert [layout_of(shape) for shape in ((28, 28), (3, 32, 32), (32, 32, 3))] == [
        None, (0, 1, 2), (2, 0, 1),
    ]  # fmt: skip
    for shape in ((5,), (4, 4), (32, 32, 7), (2, 2, 2, 2)):
        with pytest.raises(StartError, match="no pictures"):
            layout_of(shape)
