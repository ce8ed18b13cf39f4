"""Tensors as callers see them, and as an engine has them in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.adapters.edges import Edges, Found, Promise, match
from runtime.errors import ArtifactError, InvalidTensorError
from runtime.manifest import Quantization
from runtime.messages import TensorSpec

X, Z = TensorSpec("x", "FP32", (-1, 3)), TensorSpec("z", "FP32", (-1, 2))
Y = TensorSpec("y", "FP32", (-1, 2))
STEPS = Quantization("INT8", 0.5, 1)


def matched(
    inputs: list[Found], outputs: list[Found] | None = None, **options: Any
) -> tuple[Edges, Promise]:
    promise = Promise((X, Z), (Y,), {})
    return match(promise, inputs, outputs or [Found(Y)], "m", **options), promise


def test_what_is_the_same_passes_as_it_is() -> None:
    edges, _ = matched([Found(Z), Found(X)])
    tensors: dict[str, Any] = {"x": np.ones((2, 3), np.float32), "z": np.ones((2, 2), np.float32)}

    assert edges.is_plain
    assert [edge.name for edge in edges.inputs] == ["x", "z"]
    assert all(edges.encode(tensors)[name] is array for name, array in tensors.items())
    assert edges.check_shapes(tensors) == 2


def test_without_a_manifest_callers_see_what_the_engine_has() -> None:
    edges = match(None, [Found(TensorSpec("a", "INT8", (1,)), STEPS)], [Found(Y)], "m")

    assert edges.inputs[0].spec == TensorSpec("a", "INT8", (1,))
    assert edges.is_plain


def test_two_tensors_are_never_renamed() -> None:
    with pytest.raises(ArtifactError, match="m: the manifest promises the input x FP32"):
        matched([Found(TensorSpec("a", "FP32", (-1, 3))), Found(Z)], may_rename=True)


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        (((2, 3), (3, 2)), r"inputs disagree on the batch size: \[2, 3\]"),
        (((2, 4), (2, 2)), r"'x' must have shape \[-1, 3\], not \[2, 4\]"),
        (((2,), (2, 2)), r"'x' must have shape \[-1, 3\], not \[2\]"),
        (((0, 3), (0, 2)), r"'x' must have shape \[-1, 3\], not \[0, 3\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[Any, Any], complaint: str) -> None:
    edges, _ = matched([Found(X), Found(Z)])
    tensors: Any = {n: np.zeros(s, np.float32) for n, s in zip("xz", shapes, strict=True)}

    with pytest.raises(InvalidTensorError, match=complaint):
        edges.check_shapes(tensors)


def test_without_a_free_axis_the_batch_is_one() -> None:
    fixed = TensorSpec("x", "FP32", (4, 3))
    edges = match(Promise((fixed,), (Y,), {}), [Found(fixed)], [Found(Y)], "m")

    assert edges.check_shapes({"x": np.zeros((4, 3), np.float32)}) == 1


def test_a_batch_of_one_is_any_only_where_the_engine_resizes() -> None:
    one = TensorSpec("x", "FP32", (1, 3))

    edges, _ = matched([Found(one, is_resizable=True), Found(Z)])
    assert edges.inputs[0].spec == X
    with pytest.raises(ArtifactError, match=r"the model has x FP32\[1, 3\]"):
        matched([Found(one), Found(Z)])


def test_scales_agree_within_what_float32_leaves_of_them() -> None:
    spec = TensorSpec("x", "INT8", (-1, 3))
    near = Quantization("INT8", float(np.float32(0.1)), 1)
    promise = Promise((X,), (Y,), {"x": Quantization("INT8", 0.1, 1)})

    edges = match(promise, [Found(spec, near)], [Found(Y)], "m")

    assert edges.inputs[0].quantization == near
    for other in (Quantization("INT8", 0.1001, 1), Quantization("INT8", near.scale, 2)):
        with pytest.raises(ArtifactError, match="the manifest quantizes 'x' by"):
            match(promise, [Found(spec, other)], [Found(Y)], "m")


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "BOOL", "FP64"])
def test_other_types_are_no_stand_ins_for_floats(datatype: str) -> None:
    with pytest.raises(ArtifactError, match="the manifest promises"):
        matched([Found(TensorSpec("x", datatype, (-1, 3))), Found(Z)])
