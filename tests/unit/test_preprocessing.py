"""Inputs of callers become those of files: each step against the plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from runtime.binding import Grey, Normalise, Repeat, Reshape, Resize, Step, Transpose
from runtime.core.preprocessing import prepare, shape_after
from runtime.errors import InvalidTensorError

RANDOM = np.random.default_rng(3)


def test_nothing_to_do_copies_nothing() -> None:
    array = np.zeros((2, 3), np.float32)

    assert prepare(array, (), "FP32") is array


def test_a_photograph_becomes_what_a_network_of_photographs_takes() -> None:
    pictures = RANDOM.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    found = prepare(pictures, (Transpose((2, 0, 1)), Normalise(mean, std, axis=0)), "FP32")

    reference = (pictures.astype(np.float64) - mean) / std
    np.testing.assert_allclose(found, reference.transpose(0, 3, 1, 2), atol=1e-5)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_resizing_is_that_of_onnx(height: int, width: int, to_h: int, to_w: int) -> None:
    picture = np.random.default_rng(height * 13 + width).random((2, height, width, 3))
    picture = picture.astype(np.float32)
    sizes = np.array([2, to_h, to_w, 3], np.int64)
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, picture.shape),
            helper.make_tensor_value_info("sizes", TensorProto.INT64, [4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])

    found = prepare(picture, (Resize(to_h, to_w),), "FP32")

    (expected,) = ReferenceEvaluator(model).run(None, {"x": picture, "sizes": sizes})
    np.testing.assert_allclose(found, np.asarray(expected), atol=1e-5)


def test_grey_becomes_colour_and_back() -> None:
    grey = RANDOM.random((2, 4, 4, 1)).astype(np.float32)

    colour = prepare(grey, (Repeat(3),), "FP32")
    again = prepare(colour, (Grey(),), "FP32")

    assert colour.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(again, grey, atol=1e-5)


def test_brightness_is_not_the_mean() -> None:
    colour = np.array([[255, 0, 0]], np.uint8)

    np.testing.assert_allclose(prepare(colour, (Grey(axis=0),), "FP32"), [[76.245]], atol=1e-3)


def test_floats_are_rounded_to_integers_and_never_wrap_around() -> None:
    values = np.array([[-5.0, 0.5, 1.5, 254.6, 300.0, np.inf]], np.float32)

    assert prepare(values, (), "UINT8").tolist() == [[0, 0, 2, 255, 255, 255]]


def test_the_largest_integers_do_not_wrap_around() -> None:
    values = np.array([[1e30, -1e30]], np.float32)

    found = prepare(values, (), "INT64")

    assert found[0, 0] > 0
    assert found[0, 1] < 0


def test_no_integer_stands_for_nan() -> None:
    with pytest.raises(InvalidTensorError, match="NaN"):
        prepare(np.array([[np.nan]], np.float32), (), "INT8")


def test_integers_become_floats() -> None:
    found = prepare(np.array([[7]], np.uint8), (), "FP64")

    assert found.dtype == np.float64
    assert found.tolist() == [[7.0]]


def test_what_is_too_large_becomes_infinite_and_not_an_error() -> None:
    found = prepare(np.array([[3e38]], np.float32), (Normalise((0.0,), (1e-10,)),), "FP32")

    assert np.isinf(found).all()
    assert np.isinf(prepare(np.array([[1e10]], np.float32), (), "FP16")).all()


@pytest.mark.parametrize(
    ("shape", "step", "because"),
    [
        ((2, 3), Reshape((5,)), "reshaped"),
        ((2, 3), Transpose((0, 1, 2)), "axes"),
        ((2, 3), Normalise((1.0, 2.0), (1.0, 1.0)), "do not fit"),
        ((2, 3), Normalise((1.0, 2.0), (1.0, 1.0), axis=5), "do not fit"),
        ((3,), Resize(2, 2), "no picture"),
        ((2, 3), Repeat(3), "length 1"),
        ((2, 3), Grey(axis=0), "length 3"),
        ((2, 3), Grey(axis=-4), "length 3"),
    ],
)
def test_a_step_that_cannot_be_done_says_why(
    shape: tuple[int, ...], step: Step, because: str
) -> None:
    with pytest.raises(ValueError, match=because):
        shape_after(shape, (step,))
    with pytest.raises(ValueError, match=because):
        prepare(np.zeros((1, *shape), np.float32), (step,), "FP32")


def _steps() -> st.SearchStrategy[Step]:
    return st.one_of(
        st.builds(Reshape, st.sampled_from([(12,), (3, 4), (4, 3, 1), (2, 6)])),
        st.builds(Transpose, st.permutations(range(3)).map(tuple)),
        st.just(Transpose((1, 0))),
        st.builds(Normalise, st.just((0.5,)), st.just((2.0,))),
        st.builds(Resize, st.integers(1, 5), st.integers(1, 5)),
        st.builds(Repeat, st.integers(1, 3), st.integers(-3, 2)),
        st.builds(Grey, st.integers(-3, 2)),
    )


@given(st.sampled_from([(12,), (3, 4), (4, 3, 1), (2, 2, 3)]), st.lists(_steps(), max_size=4))
def test_shapes_are_those_that_were_foretold(shape: tuple[int, ...], steps: list[Step]) -> None:
    array = np.ones((2, *shape), np.float32)
    try:
        expected = shape_after(shape, steps)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - any of them
            prepare(array, steps, "FP32")
        return

    found = prepare(array, steps, "FP32")

    assert found.shape == (2, *expected)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0,), (0.0,)), ((0.0, 1.0), (1.0,)), ((float("nan"),), (1.0,)), ((0.0,), (float("inf"),))],
)
def test_numbers_that_would_make_infinity_of_inputs_are_refused(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="mean"):
        Normalise(mean, std)


def test_an_order_names_every_axis_once() -> None:
    with pytest.raises(ValueError, match="order"):
        Transpose((0, 0))
