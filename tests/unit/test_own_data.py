"""Examples of one's own: labelled, with boxes, or with a number each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import PolicyError
from tierwise.own_data import _examples

X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "is_labelled"),
    [
        ({"x": X, "labels": np.array([0, 1])}, True),
        ({"x": X, "boxes": np.full((2, 1, 4), np.nan)}, False),
        ({"x": X, "y": np.array([0.5, 1.5])}, False),
    ],
)
def test_examples_are_found_whatever_is_right_for_them(
    arrays: dict[str, Any], tmp_path: Path, *, is_labelled: bool
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)

    found, told = _examples(tmp_path / "data.npz")

    assert list(found.inputs) == ["x"]
    assert told is is_labelled


def test_inputs_alone_are_refused_for_want_of_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X)

    with pytest.raises(PolicyError, match="labels"):
        _examples(tmp_path / "data.npz")
