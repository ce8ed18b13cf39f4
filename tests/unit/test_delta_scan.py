"""Tensors are found where exporters put them, and files that lie do no harm."""

import random
import struct

import flatbuffers
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fakes.onnx_files import onnx_file
from runtime.delta import onnx_scan, tflite_scan
from runtime.delta.ranges import Kind, Range, disjoint
from runtime.delta.scan import scan

FLOATS = np.arange(100, dtype=np.float32)
FP32 = Kind(4, is_float=True)


def found(file: bytes) -> dict[str, tuple[Kind, bytes]]:
    return {one.name: (one.kind, file[one.start : one.end]) for one in scan(file)}


def field(number: int, body: bytes) -> bytes:
    """A protobuf field of bytes."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (np.float32, FP32),
        (np.float64, Kind(8, is_float=True)),
        (np.float16, Kind(2, is_float=True)),
        (np.int8, Kind(1)),
        (np.uint8, Kind(1)),
        (np.int16, Kind(2)),
        (np.int32, Kind(4)),
        (np.int64, Kind(8)),
    ],
)
def test_initializers_have_their_bytes_names_and_kinds(dtype: type[np.generic], kind: Kind) -> None:
    array = np.arange(50).astype(dtype)

    assert found(onnx_file({"w": array})) == {"w": (kind, array.tobytes())}


def test_ranges_are_in_the_order_of_the_file() -> None:
    file = onnx_file(dict.fromkeys("cab", FLOATS))

    assert [one.name for one in scan(file)] == ["c", "a", "b"]


def test_constants_have_the_name_of_what_they_make() -> None:
    value = numpy_helper.from_array(FLOATS)
    file = onnx_file({}, [helper.make_node("Constant", [], ["weights"], value=value)])

    assert found(file) == {"weights": (FP32, FLOATS.tobytes())}


def test_branches_of_an_if_are_searched_too() -> None:
    branches = {}
    for name in ("then", "else"):
        constant = helper.make_node(
            "Constant", [], [f"{name}_out"], value=numpy_helper.from_array(FLOATS)
        )
        outputs = [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [100])]
        weights = [numpy_helper.from_array(FLOATS[:7], f"{name}_w")]
        branches[f"{name}_branch"] = helper.make_graph([constant], name, [], outputs, weights)
    file = onnx_file({}, [helper.make_node("If", ["x"], ["y"], **branches)])

    assert set(found(file)) == {"then_out", "then_w", "else_out", "else_w"}


def test_functions_are_searched_too() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(FLOATS))
    function = helper.make_function(
        "local", "f", [], ["c"], [constant], [helper.make_opsetid("", 18)]
    )
    model = helper.make_model(helper.make_graph([], "g", [], []), functions=[function])

    assert set(found(model.SerializeToString())) == {"c"}


def test_typed_fields_of_fixed_width_are_found() -> None:
    tensors = [
        helper.make_tensor("f", TensorProto.FLOAT, [100], FLOATS),
        helper.make_tensor("d", TensorProto.DOUBLE, [100], FLOATS.astype(np.float64)),
        helper.make_tensor("i", TensorProto.INT64, [100], FLOATS.astype(np.int64)),
    ]
    file = helper.make_model(helper.make_graph([], "g", [], [], tensors)).SerializeToString()

    assert {name: kind for name, (kind, _) in found(file).items()} == {
        "f": FP32,
        "d": Kind(8, is_float=True),
    }


def test_sparse_tensors_are_found() -> None:
    values = numpy_helper.from_array(FLOATS, "values")
    indices = numpy_helper.from_array(np.arange(100), "indices")
    sparse = helper.make_sparse_tensor(values, indices, [1000])
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[sparse])

    assert set(found(helper.make_model(graph).SerializeToString())) == {"values", "indices"}


def test_a_tensor_of_an_odd_length_has_elements_of_one_byte() -> None:
    tensor = field(8, b"w") + b"\x10\x01" + field(9, b"12345")
    file = field(7, field(5, tensor))

    assert found(file) == {"w": (Kind(), b"12345")}


@pytest.mark.parametrize(
    "file", [b"", b"\0", b"hello", b"\xff" * 100, b"\x3a", b"TFL3TFL3", bytes(64)]
)
def test_files_of_another_kind_have_no_ranges(file: bytes) -> None:
    assert scan(file) == ()


def test_deep_nesting_ends_at_a_limit() -> None:
    body = b""
    for _ in range(2_000):
        body = field(1, field(5, field(6, body)))
    tensor = field(5, field(9, b"x" * 9))
    file = field(7, tensor + body)

    assert [one.length for one in scan(file)] == [9]


def test_a_length_past_the_end_keeps_what_was_found_before() -> None:
    good = field(5, field(8, b"w") + field(9, b"x" * 9))
    file = field(7, good) + varint(7 << 3 | 2) + varint(10**9) + b"abc"

    assert set(found(file)) == {"w"}


def test_endless_fields_end_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_scan, "MAX_FIELDS", 100)
    tensor = field(5, field(9, b"x" * 9))

    assert len(scan(field(7, tensor * 1000))) < 100


def test_every_truncation_of_a_file_is_scanned_safely() -> None:
    file = onnx_file({"w": FLOATS, "v": FLOATS[:9]})

    for length in range(len(file)):
        assert all(one.end <= length for one in scan(file[:length]))


@pytest.mark.parametrize("seed", range(5))
def test_damaged_files_are_scanned_safely(seed: int) -> None:
    rng = random.Random(seed)
    for whole in (onnx_file({"w": FLOATS, "v": FLOATS[:9]}), tflite_file()):
        for _ in range(300):
            file = bytearray(whole)
            for _ in range(rng.randint(1, 8)):
                file[rng.randrange(len(file))] = rng.randrange(256)
            ranges = scan(bytes(file))
            assert disjoint(ranges, len(file)) == ranges


def test_of_overlapping_ranges_the_first_is_kept() -> None:
    ranges = [Range(5, 10), Range(0, 8), Range(20, 5), Range(22, 100), Range(8, 0)]

    assert disjoint(ranges, 30) == (Range(0, 8), Range(20, 5))


def tflite_file(*, external: bytes = b"") -> bytes:
    """Two buffers with data, of which a tensor names one, and an empty one."""
    builder = flatbuffers.Builder(0)
    data = builder.CreateByteVector(FLOATS.tobytes())
    other = builder.CreateByteVector(b"described by nobody")
    name = builder.CreateString("weights")
    buffers = []
    for vector in (None, data, other):
        builder.StartObject(3)
        if vector is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        elif external:
            builder.PrependUint64Slot(1, 2_000, 0)
            builder.PrependUint64Slot(2, len(external), 0)
        buffers.append(builder.EndObject())
    builder.StartObject(4)
    builder.PrependUint32Slot(2, 1, 0)
    builder.PrependUOffsetTRelativeSlot(3, name, 0)
    tensor = builder.EndObject()
    tensors = vector_of(builder, [tensor])
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, tensors, 0)
    subgraphs = vector_of(builder, [builder.EndObject()])
    vector = vector_of(builder, buffers)
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
    builder.PrependUOffsetTRelativeSlot(4, vector, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    file = bytes(builder.Output())
    return file.ljust(2_000, b"\0") + external if external else file


def vector_of(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    position: int = builder.EndVector()
    return position


def test_buffers_of_a_tflite_file_are_found() -> None:
    assert found(tflite_file()) == {
        "weights": (FP32, FLOATS.tobytes()),
        "": (Kind(), b"described by nobody"),
    }


def test_data_behind_the_flatbuffer_are_found() -> None:
    assert b"far away" in {data for _, data in found(tflite_file(external=b"far away")).values()}


def test_every_truncation_of_a_tflite_file_is_scanned_safely() -> None:
    file = tflite_file()

    for length in range(len(file)):
        assert all(one.end <= length for one in scan(file[:length]))


def test_a_vector_that_claims_billions_of_tables_ends_with_the_file() -> None:
    file = bytearray(64)
    file[0:8] = struct.pack("<I", 24) + b"TFL3"
    file[8:22] = struct.pack("<HHHHHHH", 14, 20, 0, 0, 0, 0, 4)
    file[24:32] = struct.pack("<iI", 16, 4)
    file[32:36] = struct.pack("<I", 2**32 - 1)

    ranges = scan(bytes(file))

    assert disjoint(ranges, len(file)) == ranges


def test_more_tables_than_any_model_has_end_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_scan, "MAX_ITEMS", 4)

    assert {one.name for one in scan(tflite_file())} == {"weights"}
