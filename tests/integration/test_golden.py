"""Golden examples: what is reproduced, and what is no golden example at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.models import linear_model, model_folder
from runtime.adapters.engines import load_members
from runtime.adapters.golden import MAX_GOLDEN_BYTES, check_golden, make_golden
from runtime.errors import ArtifactError


def packed(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


INPUT = {"input/x": np.ones((2, 3), np.float32)}


def test_a_model_reproduces_its_own(tmp_path: Path) -> None:
    model = model_folder(tmp_path, {"a.onnx": linear_model(), "b.onnx": linear_model()})
    backends = load_members(model)

    golden = make_golden(model.manifest, backends)

    assert golden == make_golden(model.manifest, backends)
    assert check_golden(golden, model.manifest, backends, "it") == 2


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"PK\x03\x04",
        bytes(MAX_GOLDEN_BYTES + 1),
        packed(nothing=np.zeros(1)),
        packed(**INPUT),
        packed(**{"input/x": np.ones((2, 4), np.float32)}),
        packed(**INPUT, **{"output/tiny/logits": np.zeros((2, 2), np.float32)}),
        packed(**INPUT, **{"output/tiny/logits": np.full((2, 2), np.nan, np.float32)}),
        packed(**INPUT, **{"output/tiny/logits": np.zeros((9, 9), np.float32)}),
        packed(**INPUT, bomb=np.zeros(9_000_000)),
    ],
    ids=[
        "empty", "torn", "too long", "no inputs", "no outputs", "wrong shape", "other numbers",
        "not finite", "other shape", "bomb",
    ],
)  # fmt: skip
def test_what_is_not_reproduced_is_refused(tmp_path: Path, contents: bytes) -> None:
    model = model_folder(tmp_path)

    with pytest.raises(ArtifactError, match="it"):
        check_golden(contents, model.manifest, load_members(model), "it")


def test_a_model_that_answers_with_nan_has_none(tmp_path: Path) -> None:
    weights = np.full((3, 2), np.nan, np.float32)
    model = model_folder(tmp_path, {"tiny.onnx": linear_model(weights)})

    with pytest.raises(ArtifactError, match="not finite"):
        make_golden(model.manifest, load_members(model))
