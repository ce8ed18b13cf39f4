"""The file of prototypes: read as what it is, or refused with what to do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.models import model_folder
from fakes.task_models import PROTOTYPES, embedding_folder
from runtime.adapters.artifacts import open_model
from runtime.adapters.prototypes import decode_prototypes, encode_prototypes, read_prototypes
from runtime.errors import ArtifactError
from runtime.messages import Tier
from runtime.task_rules import rule_of


def _saved(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def test_prototypes_come_back_as_they_were(tmp_path: Path) -> None:
    folder = embedding_folder(tmp_path / "m", Tier.EDGE, np.eye(3).tolist())

    found = read_prototypes(open_model(folder))

    assert found is not None
    assert found.tolist() == PROTOTYPES.tolist()
    assert read_prototypes(model_folder(tmp_path / "other")) is None


def test_columns_first_is_another_order_of_the_same() -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, 3)

    assert decode_prototypes(_saved(np.asfortranarray(array)), "it").tolist() == array.tolist()


GOOD = encode_prototypes(PROTOTYPES)
LYING = GOOD.replace(b"(3, 3), }   ", b"(9999, 3), }")


@pytest.mark.parametrize(
    ("contents", "because"),
    [
        (b"", "numpy.save"),
        (b"<html>", "numpy.save"),
        (GOOD[:20], "for each label"),
        (GOOD[:9], "numpy.save"),
        (GOOD[:-1], "cut off"),
        (GOOD + b"0", "too long"),
        (LYING, "cut off"),
        (_saved(np.zeros(3)), "for each label"),
        (_saved(np.zeros((3, 3), np.int64)), "for each label"),
        (_saved(np.array([[None]]), allow_pickle=True), "for each label"),
        (GOOD.replace(b"NUMPY\x01", b"NUMPY\x02"), "format 1.0"),
    ],
)
def test_what_is_none_is_refused(contents: bytes, because: str) -> None:
    with pytest.raises(ArtifactError, match=because):
        decode_prototypes(contents, "it")


@given(st.data())
def test_damage_is_an_error_or_a_matrix(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    damaged[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))

    try:
        found = decode_prototypes(bytes(damaged), "it")
    except ArtifactError:
        return
    assert found.ndim == 2


def test_prototypes_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = embedding_folder(tmp_path / "m", Tier.EDGE, np.eye(3).tolist())
    manifest = open_model(folder).manifest

    for prototypes, because in (
        (None, "was announced"),
        (np.eye(4), "was announced"),
        (np.zeros((3, 3)), "near nothing"),
        (np.full((3, 3), np.nan), "near nothing"),
    ):
        with pytest.raises(ArtifactError, match=because):
            rule_of(manifest, prototypes)
