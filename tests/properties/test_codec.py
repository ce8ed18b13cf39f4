"""The Open Inference Protocol body: round trips, and nothing hostile gets through."""

import json
import math

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.codec import (
    RequestBody,
    decode_request,
    decode_response,
    encode_error,
    encode_request,
    encode_response,
    parse_header_length,
)
from runtime.errors import (
    InvalidTensorError,
    MalformedBodyError,
    PayloadTooLargeError,
    RequestError,
)
from runtime.tensors import BYTES, datatype_of, dtype_of

DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64",
)  # fmt: skip
names = st.text(min_size=1, max_size=12)


@st.composite
def arrays(draw: st.DrawFn) -> npt.NDArray[np.generic]:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    datatype = draw(st.sampled_from((*DATATYPES, BYTES)))
    count = math.prod(shape)
    if datatype == BYTES:
        texts = draw(st.lists(st.text(max_size=6), min_size=count, max_size=count))
        result = np.empty(count, dtype=object)
        result[:] = [text.encode() for text in texts]
        return result.reshape(shape)
    dtype = dtype_of(datatype)
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    if dtype.kind == "b":
        return (np.frombuffer(raw, np.uint8) % 2).astype(dtype).reshape(shape)
    values = np.frombuffer(raw, dtype).reshape(shape)
    return np.nan_to_num(values) if dtype.kind == "f" else values


tensors = st.dictionaries(names, arrays(), min_size=1, max_size=4)


@given(tensors)
def test_a_request_in_json_alone_says_the_same(inputs: dict[str, npt.NDArray[np.generic]]) -> None:
    body, header_length = encode_request(inputs, binary=False, outputs=["y"])

    asked = decode_request(body)

    assert header_length == len(body)
    assert _same(asked.inputs, inputs)
    assert asked.outputs == ("y",)
    assert not asked.wants_binary("y")


def _same(
    left: dict[str, npt.NDArray[np.generic]], right: dict[str, npt.NDArray[np.generic]]
) -> bool:
    return list(left) == list(right) and all(
        left[name].shape == right[name].shape
        and datatype_of(left[name]) == datatype_of(right[name])
        and np.array_equal(left[name], right[name])
        for name in left
    )


@given(tensors, names)
def test_a_binary_request_survives_the_wire(
    inputs: dict[str, npt.NDArray[np.generic]], request_id: str
) -> None:
    body, header_length = encode_request(
        inputs, request_id=request_id, parameters={"remaining_ms": 5.5}, outputs=("a", "b")
    )

    decoded = decode_request(body, header_length)

    assert _same(decoded.inputs, inputs)
    assert decoded.id == request_id
    assert decoded.parameters["remaining_ms"] == 5.5
    assert decoded.outputs == ("a", "b")
    assert decoded.wants_binary("a")


@given(tensors, st.booleans())
def test_a_response_survives_the_wire_as_binary_and_as_json(
    outputs: dict[str, npt.NDArray[np.generic]],
    is_binary: bool,
) -> None:
    wanted = RequestBody(inputs={}, binary_outputs=None if is_binary else frozenset())

    body, header_length = encode_response(
        outputs,
        model_name="m",
        model_version="7",
        request_id="r",
        parameters={"outcome": "answered"},
        request=wanted,
    )
    decoded = decode_response(body, header_length)

    assert (header_length is not None) == is_binary
    assert _same(decoded.outputs, outputs)
    assert (decoded.model_name, decoded.model_version, decoded.id) == ("m", "7", "r")
    assert decoded.parameters == {"outcome": "answered"}


@given(st.binary(max_size=200), st.none() | st.integers(-5, 300))
def test_any_bytes_are_a_request_or_a_named_error(body: bytes, header_length: int | None) -> None:
    try:
        decoded = decode_request(body, header_length)
    except RequestError:
        return
    assert decoded.inputs


@given(tensors, st.data())
def test_a_damaged_request_is_read_or_refused_and_never_crashes(
    inputs: dict[str, npt.NDArray[np.generic]], data: st.DataObject
) -> None:
    body, header_length = encode_request(inputs)
    position = data.draw(st.integers(0, len(body) - 1))
    damaged = bytearray(body)
    damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))

    for candidate in (bytes(damaged), body[:cut]):
        try:
            decode_request(candidate, min(header_length, len(candidate)))
        except RequestError:
            continue


def _request(**tensor: object) -> bytes:
    described = {"name": "x", "shape": [2], "datatype": "FP32", **tensor}
    return json.dumps({"inputs": [described]}).encode()


@pytest.mark.parametrize(
    "tensor",
    [
        {"data": [1.0]},
        {"data": [1.0, 2.0, 3.0]},
        {"data": [1.0, "a"]},
        {"data": [1.0, True]},
        {"data": [1.0, None]},
        {"data": [1.0, 1e300]},
        {"shape": [-1], "data": []},
        {"shape": [2**40, 2**40], "data": [1.0]},
        {"shape": [1] * 17, "data": [1.0]},
        {"datatype": "FP33", "data": [1.0, 2.0]},
        {"datatype": "UINT8", "data": [1, 256]},
        {"datatype": "UINT8", "data": [1, -1]},
        {"datatype": "UINT8", "data": [1, 1.5]},
        {"datatype": "BOOL", "data": [1, 0]},
        {"datatype": "BYTES", "data": ["a", 1]},
        {"parameters": {"binary_data_size": 8}},
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(tensor: dict[str, object]) -> None:
    with pytest.raises(InvalidTensorError):
        decode_request(_request(**tensor))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [{"name": "x"}]}',
        b'{"inputs": [{"name": "x", "shape": ["a"], "datatype": "FP32", "data": [1]}]}',
        b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}',
        b"\xff\xfe",
        b"[" * 100_000,
        _request(parameters={"binary_data_size": -1}),
        _request(parameters={"binary_data_size": "8"}),
        _request(parameters={"binary_data_size": True}),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        decode_request(body)


def test_bytes_after_the_last_tensor_are_refused() -> None:
    body, header_length = encode_request({"x": np.zeros(2, np.float32)})

    with pytest.raises(MalformedBodyError, match="follow"):
        decode_request(body + b"!", header_length)


def test_too_few_bytes_for_a_tensor_are_refused() -> None:
    body, header_length = encode_request({"x": np.zeros(2, np.float32)})

    with pytest.raises(InvalidTensorError, match="left"):
        decode_request(body[:-1], header_length)


def test_a_byte_count_other_than_the_shape_asks_for_is_refused() -> None:
    body, header_length = encode_request({"x": np.zeros(2, np.float32)})
    lying = body[:header_length].replace(b'"shape":[2]', b'"shape":[3]')

    with pytest.raises(InvalidTensorError, match="takes 12 bytes"):
        decode_request(lying + body[header_length:], len(lying))


def test_a_tensor_that_is_there_twice_is_refused() -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}

    with pytest.raises(MalformedBodyError, match="twice"):
        decode_request(json.dumps({"inputs": [tensor, tensor]}).encode())


def test_more_tensors_than_the_limit_are_refused() -> None:
    many = [
        {"name": str(number), "shape": [1], "datatype": "FP32", "data": [1.0]}
        for number in range(65)
    ]

    with pytest.raises(MalformedBodyError, match="limit"):
        decode_request(json.dumps({"inputs": many}).encode())


def test_a_body_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(PayloadTooLargeError):
        decode_request(b"{" * 100, max_bytes=99)


@pytest.mark.parametrize("raw", [b"\x05\0\0\0ab", b"\x01\0\0\0ab", b"\x01\0\0", b""])
def test_byte_strings_that_do_not_fill_their_tensor_are_refused(raw: bytes) -> None:
    header = _request(shape=[1], datatype="BYTES", parameters={"binary_data_size": len(raw)})

    with pytest.raises(InvalidTensorError):
        decode_request(header + raw, len(header))


def test_byte_strings_that_end_inside_a_length_are_refused() -> None:
    raw = b"\x04\0\0\0abcd\x01\0"
    header = _request(datatype="BYTES", parameters={"binary_data_size": len(raw)})

    with pytest.raises(InvalidTensorError, match="inside a length"):
        decode_request(header + raw, len(header))


@pytest.mark.parametrize("text", ["-1", "1.5", "abc", "12", "99999999999", "\u0661"])
def test_a_header_length_that_is_none_or_beyond_the_body_is_refused(text: str) -> None:
    with pytest.raises(MalformedBodyError):
        parse_header_length(text, 11)


def test_no_header_length_means_that_all_is_json() -> None:
    assert parse_header_length("", 11) is None
    assert parse_header_length("11", 11) == 11


def test_json_data_may_be_nested() -> None:
    body = decode_request(_request(shape=[2, 2], data=[[1, 2], [3, 4.5]]))

    assert body.inputs["x"].tolist() == [[1, 2], [3, 4.5]]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, set()),
        ({"parameters": {"binary_data_output": True}}, {"a", "b"}),
        (
            {"outputs": [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]},
            {"a"},
        ),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}],
            },
            {"b"},
        ),
    ],
)
def test_the_caller_chooses_which_outputs_are_binary(
    header: dict[str, object], expected: set[str]
) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
    body = decode_request(json.dumps({"inputs": [tensor], **header}).encode())

    assert {name for name in ("a", "b") if body.wants_binary(name)} == expected


def test_an_output_that_json_cannot_carry_is_refused() -> None:
    wanted = RequestBody(inputs={})

    with pytest.raises(InvalidTensorError, match="NaN"):
        encode_response({"y": np.array([np.nan])}, model_name="m", request=wanted)


def test_an_error_body_gives_its_text() -> None:
    with pytest.raises(MalformedBodyError, match="queues are full"):
        decode_response(encode_error("queues are full"))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_response_or_a_named_error(body: bytes) -> None:
    try:
        decode_response(body)
    except RequestError:
        return


def test_the_header_is_plain_json_of_the_protocol() -> None:
    body, header_length = encode_request({"x": np.zeros((1, 2), np.float32)}, request_id="r1")

    header = msgspec.json.decode(body[:header_length])

    assert header == {
        "id": "r1",
        "inputs": [
            {
                "name": "x",
                "shape": [1, 2],
                "datatype": "FP32",
                "parameters": {"binary_data_size": 8},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
