"""Requests that wait for a reply: bounded, each resolved exactly once.

Correlation data is 16 bytes: the epoch of the asker (8) and a counter (8), so that a reply to an
earlier life of the process is never taken for one of this life.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from runtime.errors import OverloadedError

T = TypeVar("T")
CORRELATION_BYTES = 16


def correlation_ids(epoch: int) -> Iterator[bytes]:
    """Endless correlation data of one process life; ``epoch`` is 0 to 2**64-1."""
    counter = 0
    while True:
        yield struct.pack(">QQ", epoch, counter)
        counter = (counter + 1) % 2**64


@dataclass(frozen=True, slots=True)
class Pending(Generic[T]):
    """One request that waits; ``sent_at_s`` is monotonic."""

    sent_at_s: float
    value: T


class PendingTable(Generic[T]):
    """Correlation data to waiting request."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: dict[bytes, Pending[T]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether nothing more can wait."""
        return len(self._waiting) >= self._capacity

    def add(self, correlation: bytes, entry: Pending[T]) -> None:
        """Starts to wait.

        Raises:
            OverloadedError: ``capacity`` requests wait already.
            ValueError: this correlation waits already.
        """
        if correlation in self._waiting:
            raise ValueError("correlation data is used twice")
        if self.is_full:
            raise OverloadedError(f"{self._capacity} requests wait for a reply already")
        self._waiting[correlation] = entry

    def resolve(self, correlation: bytes) -> Pending[T] | None:
        """Ends the wait; None for what is unknown, late or a duplicate."""
        return self._waiting.pop(correlation, None)

    def drain(self) -> list[Pending[T]]:
        """Ends and returns all waits."""
        ended = list(self._waiting.values())
        self._waiting.clear()
        return ended
