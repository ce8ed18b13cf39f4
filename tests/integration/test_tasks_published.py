"""Models of other tasks are published as classifiers are, with all that they need."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloud_tier.publishing import Prepared, prepare
from fakes.task_models import PROTOTYPES, detector_folder, embedding_folder, finder
from runtime.adapters.artifacts import describe_file, open_model, write_model
from runtime.adapters.prototypes import encode_prototypes
from runtime.errors import ArtifactError
from runtime.messages import Tier


def _prepared(folder: Path) -> Prepared:
    return prepare(folder, model="found", version=2, policy=None, without_policy=True)


def test_a_detector_and_prototypes_are_taken_along(tmp_path: Path) -> None:
    near = _prepared(embedding_folder(tmp_path / "e", Tier.EDGE, np.eye(3).tolist()))
    boxes = _prepared(detector_folder(tmp_path / "d", Tier.EDGE, finder(1.0, 0.5)))

    assert "prototypes.npy" in near.variant.files
    assert near.manifest.embedding is not None
    assert boxes.manifest.task == "detection"


@pytest.mark.parametrize("bad", [PROTOTYPES[:2], np.zeros((3, 3), np.float32)])
def test_prototypes_that_no_device_would_take_are_not_published(
    bad: np.ndarray, tmp_path: Path
) -> None:
    opened = open_model(embedding_folder(tmp_path / "e", Tier.EDGE, np.eye(3).tolist()))
    files = {
        "m0.onnx": opened.read_verified("m0.onnx"),
        "prototypes.npy": encode_prototypes(bad),
    }
    described = {name: describe_file(contents) for name, contents in files.items()}
    write_model(tmp_path / "bad", msgspec.structs.replace(opened.manifest, files=described), files)

    with pytest.raises(ArtifactError, match="prototype"):
        _prepared(tmp_path / "bad")
