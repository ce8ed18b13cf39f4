"""Finds the tensors of an ONNX file by walking its protobuf fields.

Field numbers and data types are those of ``onnx.proto3``, wire types those of the protobuf
encoding. Weights are initializers, or attributes of nodes (``Constant``), in the graph, its
subgraphs (``If``, ``Loop``) or functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from runtime.delta.ranges import Kind, Range

# A model of a hundred thousand nodes has about a million fields.
MAX_FIELDS: Final = 2_000_000
MAX_DEPTH: Final = 64
MAX_NAME_BYTES: Final = 200
MAX_VARINT_BYTES: Final = 10

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
TENSOR: Final = "tensor"
# Message type -> field number -> type of the message in that field.
MESSAGES: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: TENSOR, 15: "sparse tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: TENSOR,
        6: "graph",
        10: TENSOR,
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: TENSOR, 2: TENSOR},
}
NODE_OUTPUT, DATA_TYPE, TENSOR_NAME = 2, 2, 8
RAW_DATA: Final = 9
# Packed fields of fixed width: float_data and double_data.
PACKED: Final = {4: Kind(4, is_float=True), 10: Kind(8, is_float=True)}
KINDS: Final = {
    1: Kind(4, is_float=True),
    4: Kind(2),
    5: Kind(2),
    6: Kind(4),
    7: Kind(8),
    10: Kind(2, is_float=True),
    11: Kind(8, is_float=True),
    12: Kind(4),
    13: Kind(8),
    14: Kind(4, is_float=True),
    15: Kind(8, is_float=True),
    16: Kind(2, is_float=True),
}


class Field(NamedTuple):
    """A field of a message: its number, and where its bytes lie, or its value if it is a varint."""

    number: int
    wire_type: int
    start: int
    end: int
    value: int = 0


class _Walk:
    """Reads fields, so many and no more."""

    def __init__(self, file: bytes) -> None:
        self._file, self._left = file, MAX_FIELDS

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Those of the message between two positions, up to the first that does not add up."""
        position = start
        while position < end and self._left:
            self._left -= 1
            tag = self._varint(position, end)
            if tag is None or tag[0] >> 3 == 0:
                return
            field = self._field(tag[0] >> 3, tag[0] & 7, tag[1], end)
            if field is None:
                return
            yield field
            position = field.end

    def text(self, field: Field) -> str:
        """A name."""
        end = min(field.end, field.start + MAX_NAME_BYTES)
        return self._file[field.start : end].decode("utf-8", "replace")

    def _field(self, number: int, wire_type: int, position: int, end: int) -> Field | None:
        match wire_type:
            case 0:
                read = self._varint(position, end)
                return read and Field(number, wire_type, position, read[1], read[0])
            case 2:
                read = self._varint(position, end)
                if read is None or read[0] > end - read[1]:
                    return None
                return Field(number, wire_type, read[1], read[1] + read[0])
            case 1 | 5:
                stop = position + (8 if wire_type == FIXED64 else 4)
                return Field(number, wire_type, position, stop) if stop <= end else None
            case _:
                return None

    def _varint(self, position: int, end: int) -> tuple[int, int] | None:
        value = 0
        for num, byte in enumerate(self._file[position : min(end, position + MAX_VARINT_BYTES)]):
            value |= (byte & 127) << 7 * num
            if byte < 128:  # noqa: PLR2004 - the top bit says that more follow
                return value, position + num + 1
        return None


def scan_onnx(file: bytes) -> list[Range]:
    """The bytes of all tensors, in no order; empty where the file is something else."""
    walk = _Walk(file)
    found: list[Range] = []
    # What is still to be read: message type, where it lies, the name of the node around it, depth.
    todo = [("model", 0, len(file), "", 0)]
    while todo:
        message, start, end, around, depth = todo.pop()
        if message == TENSOR:
            found += _tensor(walk, start, end, around)
            continue
        known = MESSAGES[message]
        inner = []
        for field in walk.fields(start, end):
            if field.wire_type != BYTES:
                continue
            if message == "node" and field.number == NODE_OUTPUT and not around:
                around = walk.text(field)
            if field.number in known and depth < MAX_DEPTH:
                inner.append((known[field.number], field.start, field.end))
        # The name of a node's output does not go down into its subgraphs, whose nodes have theirs.
        passed = around if message in {"node", "attribute"} else ""
        todo += [
            (kind, low, high, "" if kind == "graph" else passed, depth + 1)
            for kind, low, high in reversed(inner)
        ]
    return found


def _tensor(walk: _Walk, start: int, end: int, around: str) -> list[Range]:
    data_type, name = 0, ""
    raw: list[Field] = []
    packed: list[Field] = []
    for field in walk.fields(start, end):
        if field.wire_type == VARINT and field.number == DATA_TYPE:
            data_type = field.value
        elif field.wire_type == BYTES and field.number == TENSOR_NAME:
            name = walk.text(field)
        elif field.wire_type == BYTES and field.number == RAW_DATA:
            raw.append(field)
        elif field.wire_type == BYTES and field.number in PACKED:
            packed.append(field)
    name = name or around
    kind = KINDS.get(data_type, Kind())
    return [_range(field, kind, name) for field in raw] + [
        _range(field, PACKED[field.number], name) for field in packed
    ]


def _range(field: Field, kind: Kind, name: str) -> Range:
    length = field.end - field.start
    return Range(field.start, length, kind if length % kind.width == 0 else Kind(), name)
