"""Finds the tensors of a TFLite file by reading its flatbuffer tables.

Slots are those of TFLite's ``schema.fbs``: a model has subgraphs and buffers, a subgraph tensors, a
tensor says in which buffer its data are, of which type. Data lie in the buffer, or for large models
behind the flatbuffer at an offset that the buffer gives.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from runtime.delta.ranges import Kind, Range

IDENTIFIER: Final = b"TFL3"
MAX_ITEMS: Final = 100_000
MAX_NAME_BYTES: Final = 200

MODEL_SUBGRAPHS, MODEL_BUFFERS = 2, 4
SUBGRAPH_TENSORS: Final = 0
TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME = 1, 2, 3
BUFFER_DATA, BUFFER_OFFSET, BUFFER_SIZE = 0, 1, 2
KINDS: Final = {
    0: Kind(4, is_float=True),
    1: Kind(2, is_float=True),
    2: Kind(4),
    4: Kind(8),
    7: Kind(2),
    8: Kind(4, is_float=True),
    10: Kind(8, is_float=True),
    11: Kind(8, is_float=True),
    12: Kind(8),
    15: Kind(4),
    16: Kind(2),
    18: Kind(2, is_float=True),
}


def is_tflite(file: bytes) -> bool:
    """Whether it says so at the place for it."""
    return file[4:8] == IDENTIFIER


def scan_tflite(file: bytes) -> list[Range]:
    """The bytes of all buffers that hold data, in no order; empty where tables do not add up."""
    tables = _Tables(file)
    model = tables.number("<I", 0) or 0
    about = _about(tables, model)
    found = []
    for index, buffer in enumerate(tables.children(model, MODEL_BUFFERS)):
        kind, name = about.get(index, (Kind(), ""))
        place = _place(tables, buffer)
        if place is not None:
            start, length = place
            found.append(Range(start, length, kind if length % kind.width == 0 else Kind(), name))
    return found


def _about(tables: _Tables, model: int) -> dict[int, tuple[Kind, str]]:
    """The kind and name of each buffer, as the first tensor in it says."""
    about: dict[int, tuple[Kind, str]] = {}
    for subgraph in tables.children(model, MODEL_SUBGRAPHS):
        for tensor in tables.children(subgraph, SUBGRAPH_TENSORS):
            buffer = tables.scalar(tensor, TENSOR_BUFFER, "<I")
            datatype = tables.scalar(tensor, TENSOR_TYPE, "<B")
            about.setdefault(buffer, (KINDS.get(datatype, Kind()), tables.text(tensor)))
    return about


def _place(tables: _Tables, buffer: int) -> tuple[int, int] | None:
    inside = tables.vector(buffer, BUFFER_DATA)
    if inside is not None:
        return inside
    start = tables.scalar(buffer, BUFFER_OFFSET, "<Q")
    # Offsets 0 and 1 mean that the data are not behind the flatbuffer.
    return (start, tables.scalar(buffer, BUFFER_SIZE, "<Q")) if start > 1 else None


class _Tables:
    """Reads a flatbuffer; what lies outside of the file is not there. So many items and no more."""

    def __init__(self, file: bytes) -> None:
        self._file, self._left = file, MAX_ITEMS

    def number(self, layout: str, position: int) -> int | None:
        if not 0 <= position <= len(self._file) - struct.calcsize(layout):
            return None
        value: int = struct.unpack_from(layout, self._file, position)[0]
        return value

    def scalar(self, table: int, slot: int, layout: str) -> int:
        """A table's field; 0, the default of all that are read here, where it is absent."""
        position = self._field(table, slot)
        return (self.number(layout, position) if position is not None else 0) or 0

    def vector(self, table: int, slot: int) -> tuple[int, int] | None:
        """Where the items of a vector start, and how many there are."""
        position = self._field(table, slot)
        jump = self.number("<I", position) if position is not None else None
        if position is None or jump is None:
            return None
        count = self.number("<I", position + jump)
        return None if count is None else (position + jump + 4, count)

    def children(self, table: int, slot: int) -> Iterator[int]:
        """The positions of the tables in a vector of tables."""
        start, count = self.vector(table, slot) or (0, 0)
        for position in range(start, start + 4 * count, 4):
            jump = self.number("<I", position)
            if jump is None or not self._left:
                return
            self._left -= 1
            yield position + jump

    def text(self, tensor: int) -> str:
        """A tensor's name."""
        start, length = self.vector(tensor, TENSOR_NAME) or (0, 0)
        return self._file[start : start + min(length, MAX_NAME_BYTES)].decode("utf-8", "replace")

    def _field(self, table: int, slot: int) -> int | None:
        back = self.number("<i", table)
        if back is None:
            return None
        size = self.number("<H", table - back)
        if size is None or 4 + 2 * slot + 2 > size:
            return None
        offset = self.number("<H", table - back + 4 + 2 * slot)
        return table + offset if offset else None
