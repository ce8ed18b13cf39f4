"""Examples from the field: checked, divided, repeated, and what their teacher says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_zoo.retrain_data import (
    MAX_REPEATS,
    Added,
    check_added,
    divide,
    is_said,
    read_added,
    repeated,
    taught_logits,
)
from runtime.errors import PolicyError, StartError


def added(num: int, *, seed: int = 0) -> Added:
    random = np.random.default_rng(seed)
    return Added(
        random.random((num, 28, 28), np.float32), random.integers(0, 10, num), np.ones(num)
    )


def test_a_part_is_held_back_and_nothing_is_lost() -> None:
    whole = added(1000)

    taught, held = divide(whole)

    assert 150 < len(held.labels) < 250
    assert len(taught.labels) + len(held.labels) == 1000


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_the_same_picture_is_always_on_the_same_side(seed: int) -> None:
    whole = added(20, seed=seed)
    order = np.random.default_rng(seed).permutation(20)
    twice = Added(*(np.concatenate([one, one[order]]) for one in whole))

    once, both = divide(whole), divide(twice)

    assert len(both.held.labels) == 2 * len(once.held.labels)


def test_examples_are_repeated_by_weight_within_limits() -> None:
    few = added(4)._replace(weights=np.array([0.1, 1.0, 2.6, 1e9]))

    many = repeated(few)

    assert [int((many.pixels == one).all(axis=(1, 2)).sum()) for one in few.pixels] == [
        1, 1, 3, MAX_REPEATS
    ]  # fmt: skip


def test_what_a_person_says_the_teacher_says() -> None:
    logits = taught_logits(np.array([3, 9]))

    assert logits.argmax(axis=1).tolist() == [3, 9]
    assert np.exp(logits).sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pixels": np.zeros((3, 27, 28), np.float32)}, "inputs of shape"),
        ({"weights": np.ones(2)}, "inputs of shape"),
        ({"pixels": np.full((3, 28, 28), np.nan, np.float32)}, "numbers that are none"),
        ({"weights": np.array([1, np.inf, 1])}, "numbers that are none"),
        ({"labels": np.array([0, 10, 1])}, "labels outside"),
        ({"labels": np.array([0, -1, 1])}, "labels outside"),
        ({"weights": np.array([1.0, -0.1, 1.0])}, "weights below 0"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(StartError, match=text):
        check_added(added(3)._replace(**change))


def test_nothing_at_all_is_no_error() -> None:
    nothing = check_added(added(0))

    taught, held = divide(nothing)

    assert (len(taught.labels), len(held.labels), len(repeated(taught).labels)) == (0, 0, 0)


def write(path: Path, num: int, **change: Any) -> Path:
    whole = added(num)
    arrays: dict[str, Any] = {"image": whole.pixels, "labels": whole.labels} | change
    np.savez(path, **arrays)
    return path


def test_a_folder_of_files_is_read_as_one(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", 3, weights=np.full(3, 2.0))
    write(tmp_path / "b.npz", 2)

    found = read_added(tmp_path)

    assert found.weights.tolist() == [2.0, 2.0, 2.0, 1.0, 1.0]
    assert found.pixels.shape == (5, 28, 28)
    assert len(read_added(tmp_path / "b.npz").labels) == 2


def test_what_weighs_nothing_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", 3, weights=np.array([0.0, 0.4, 1.0]))

    found = read_added(tmp_path)

    assert is_said(found).tolist() == [False, True]


def test_an_empty_folder_says_where_examples_come_from(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="data export"):
        read_added(tmp_path)


def test_examples_of_another_task_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", sound=np.zeros((2, 5)), labels=np.zeros(2, np.int64))

    with pytest.raises(StartError, match="another task"):
        read_added(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", 3)
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(PolicyError, match="cannot be read"):
        read_added(tmp_path)
