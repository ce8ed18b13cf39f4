"""Labels and inputs are found in data of anybody's naming, or it is said what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_zoo.class_labels import as_indices
from model_zoo.labelled import find_labelled, inputs_for, single_input
from runtime.errors import PolicyError
from runtime.messages import TensorSpec

KINDS: Any = st.sampled_from([np.int64, np.float32, np.uint64, np.dtype("U3"), np.bool_])
X, Y = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("x", "y"), "x"),
        (("images", "labels"), "images"),
        (("X", "target"), "X"),
        (("DATA", "Class"), "DATA"),
        (("anything", "label"), "anything"),
        (("x_test", "y_test"), "x_test"),
        (("test_images", "test_labels"), "test_images"),
        (("xval", "yval"), "xval"),
        (("X-train", "y-train"), "X-train"),
    ],
)
def test_usual_names(names: tuple[str, str], taken: str) -> None:
    found = find_labelled({names[0]: X, names[1]: Y}, "data")

    assert list(found.inputs) == [taken]
    assert found.labels.tolist() == Y.tolist()


def test_the_test_part_before_the_others() -> None:
    arrays_of = {f"{kind}_{part}": one for part in ("train", "test", "val")
                 for kind, one in (("x", X), ("y", Y))}  # fmt: skip

    found = find_labelled(arrays_of, "data")

    assert list(found.inputs) == ["x_test"]
    assert "`test` is taken" in found.notes[0]


def test_names_of_classes_beside_the_labels() -> None:
    found = find_labelled({"x": X, "y": Y, "classes": np.array(["no", "yes"])}, "data")

    assert found.label_names == ("no", "yes")
    assert list(found.inputs) == ["x"]


def test_of_several_inputs_the_one_that_is_named_like_one() -> None:
    inputs: dict[str, Any] = {"ids": np.arange(4), "images": X}

    assert single_input(inputs, "data") == "images"
    with pytest.raises(PolicyError, match="several inputs"):
        single_input({"images": X, "x": X}, "data")


SPEC = TensorSpec("input", "UINT8", (-1, 2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.bool_])
def test_whole_numbers_become_bytes(dtype: Any) -> None:
    found = inputs_for({"x": np.ones((3, 2), dtype)}, [SPEC], "data")

    assert found["input"].dtype == np.uint8


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan, np.inf])
def test_numbers_that_are_no_bytes_are_refused(value: float) -> None:
    with pytest.raises(PolicyError):
        inputs_for({"x": np.full((3, 2), value)}, [SPEC], "data")


def test_what_is_no_number_or_too_large_is_refused() -> None:
    spec = TensorSpec("input", "FP32", (-1, 1))
    for wrong in (np.full((1, 1), "a"), np.full((1, 1), 1e300)):
        with pytest.raises(PolicyError):
            inputs_for({"x": wrong}, [spec], "data")


def test_a_model_of_several_inputs_takes_them_by_name() -> None:
    specs = [TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP32", (-1, 2))]

    assert inputs_for({"a": X, "b": X, "c": X}, specs, "data").keys() == {"a", "b"}
    with pytest.raises(PolicyError, match="name them so"):
        inputs_for({"a": X}, specs, "data")


@given(st.dictionaries(
    st.sampled_from(["x", "y", "labels", "x_test", "y_test", "classes", "", "test", "y_"]),
    arrays.arrays(KINDS, st.sampled_from([(), (0,), (3,), (3, 1), (3, 2), (2, 3, 2)])),
))  # fmt: skip
def test_whatever_the_file_has_it_is_data_or_told(found: dict[str, Any]) -> None:
    try:
        data = find_labelled(found, "data")
    except PolicyError:
        return

    assert all(len(one) == len(data.labels) > 0 for one in data.inputs.values())


def test_labels_by_name_and_by_number() -> None:
    names = ("no", "yes")

    assert as_indices(np.array(["yes", "no"]), names, "data").tolist() == [1, 0]
    assert as_indices(np.array([b"yes"]), names, "data").tolist() == [1]
    assert as_indices(np.array([1, 0]), names, "data").tolist() == [1, 0]
    for wrong in (np.array([2]), np.array([-1]), np.array(["maybe"])):
        with pytest.raises(PolicyError):
            as_indices(wrong, names, "data")
