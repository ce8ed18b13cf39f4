"""Unsigned integers of 7 bits a byte, lowest first, as in protobuf; and reading with bounds."""

from __future__ import annotations

from typing import Final

from runtime.errors import DeltaError

MAX_BYTES: Final = 9
SHORT: Final = "the delta ends too early; fetch the full file"


def put(*values: int) -> bytes:
    """Each value from 0 to 2**63 - 1, one after another."""
    out = bytearray()
    for value in values:
        left = value
        while left > 127:  # noqa: PLR2004 - 7 bits
            out.append(left & 127 | 128)
            left >>= 7
        out.append(left)
    return bytes(out)


def fold(value: int) -> int:
    """A signed number as an unsigned one: 0, -1, 1, -2 are 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def unfold(value: int) -> int:
    """Undoes ``fold``."""
    return -(value + 1) // 2 if value & 1 else value // 2


class Reader:
    """Takes bytes and numbers from the front; DeltaError where there are not that many."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data, self._position = data, position

    @property
    def num_left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._position

    def bytes(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        if length > self.num_left:
            raise DeltaError(SHORT)
        start = self._position
        self._position += length
        return self._data[start : self._position]

    def number(self) -> int:
        """The next number."""
        value = 0
        for num in range(MAX_BYTES):
            byte = self.bytes(1)[0]
            value |= (byte & 127) << 7 * num
            if byte < 128:  # noqa: PLR2004 - the top bit says that more follow
                return value
        raise DeltaError("the delta has a number without an end; fetch the full file")

    def numbers(self, count: int) -> list[int]:
        """The next ``count`` numbers."""
        return [self.number() for _ in range(count)]
