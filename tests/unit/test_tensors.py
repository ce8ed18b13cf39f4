import numpy as np
import pytest

from runtime.errors import InvalidTensorError
from runtime.messages import Tensors, TensorSpec
from runtime.tensors import check_fit, datatype_of, from_list, pack, unpack

SPECS = (TensorSpec("image", "FP32", (-1, 2, 2)),)


def test_tensors_that_fit_give_their_batch_size() -> None:
    assert check_fit({"image": np.zeros((3, 2, 2), np.float32)}, SPECS) == 3


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"picture": np.zeros((1, 2, 2), np.float32)},
        {"image": np.zeros((1, 2, 2), np.float32), "more": np.zeros(1)},
        {"image": np.zeros((1, 2, 2), np.float64)},
        {"image": np.zeros((1, 2, 3), np.float32)},
        {"image": np.zeros((2, 2), np.float32)},
        {"image": np.zeros((0, 2, 2), np.float32)},
        {"image": np.full((1, 2, 2), np.nan, np.float32)},
        {"image": np.full((1, 2, 2), np.inf, np.float32)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors: Tensors) -> None:
    with pytest.raises(InvalidTensorError):
        check_fit(tensors, SPECS)


def test_inputs_must_agree_on_the_batch_size() -> None:
    specs = (TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "INT64", (-1,)))

    with pytest.raises(InvalidTensorError, match="batch"):
        check_fit({"a": np.zeros(2, np.float32), "b": np.zeros(3, np.int64)}, specs)


def test_a_model_without_inputs_or_with_a_scalar_has_a_batch_too() -> None:
    assert check_fit({}, ()) == 0
    assert check_fit({"x": np.ones((), np.float32)}, (TensorSpec("x", "FP32", ()),)) == 1


def test_big_endian_arrays_travel_as_little_endian() -> None:
    array = np.array([1.5, 2.5], dtype=">f4")

    assert pack(array) == np.array([1.5, 2.5], dtype="<f4").tobytes()
    assert datatype_of(array) == "FP32"


def test_text_travels_as_bytes_and_other_objects_do_not() -> None:
    assert pack(np.array(["ab"], dtype=object)) == b"\x02\0\0\0ab"
    with pytest.raises(InvalidTensorError, match="int"):
        pack(np.array([7], dtype=object))


def test_a_type_without_a_name_in_the_protocol_is_refused() -> None:
    with pytest.raises(InvalidTensorError, match="complex"):
        datatype_of(np.zeros(1, np.complex64))


@pytest.mark.parametrize(
    "shape",
    [
        (0, 10**30),
        (0, 2**62, 2**62),
        (0, 2**63 - 1),
        (10**4000,) * 16,
        (2**48, 2**48),
        (-1,),
        (1,) * 17,
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_shape_that_no_memory_holds_is_refused_even_when_it_is_empty(
    shape: tuple[int, ...], datatype: str
) -> None:
    with pytest.raises(InvalidTensorError):
        unpack(memoryview(b""), datatype, shape)
    with pytest.raises(InvalidTensorError):
        from_list([], datatype, shape)


def test_a_refusal_repeats_only_a_little_of_what_was_sent() -> None:
    tensors: Tensors = {f"{n}" + "x" * 10_000: np.zeros(1) for n in range(64)}

    with pytest.raises(InvalidTensorError) as refused:
        check_fit(tensors, SPECS)

    assert len(str(refused.value)) < 1000
