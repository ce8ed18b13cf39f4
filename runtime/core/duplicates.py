"""One request id, one computation, however often the request arrives.

A copy with the same correlation data is a duplicate of the network and is ignored. A retry has new
correlation data: it joins the running work, or gets the finished reply again.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Reply = TypeVar("Reply")
MAX_ATTEMPTS_KEPT = 16


class Arrival(enum.Enum):
    """What an arriving request is to the window."""

    FRESH = "fresh"
    COPY = "copy"
    JOINED = "joined"
    REPEATED = "repeated"


@dataclass(slots=True)
class _Known(Generic[Reply]):
    correlations: list[bytes] = field(default_factory=list)
    reply: Reply | None = None


class RecentRequests(Generic[Reply]):
    """The latest ``capacity`` requests by (asker, request id); finished ones go first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._known: OrderedDict[tuple[str, str], _Known[Reply]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def arrive(
        self, asker: str, request_id: str, correlation: bytes
    ) -> tuple[Arrival, Reply | None]:
        """Registers an arrival; a reply comes along when the request was finished before."""
        key = (asker, request_id)
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Known([correlation])
            self._forget()
            return Arrival.FRESH, None
        if correlation in known.correlations or len(known.correlations) >= MAX_ATTEMPTS_KEPT:
            return Arrival.COPY, None
        known.correlations.append(correlation)
        if known.reply is None:
            return Arrival.JOINED, None
        return Arrival.REPEATED, known.reply

    def finish(self, asker: str, request_id: str, reply: Reply) -> list[bytes]:
        """Keeps the reply; returns the correlation data of everyone who waits for it."""
        known = self._known.get((asker, request_id))
        if known is None or known.reply is not None:
            return []
        known.reply = reply
        return list(known.correlations)

    def abandon(self, asker: str, request_id: str) -> None:
        """Forgets a request that was cancelled, so that asking again starts afresh."""
        self._known.pop((asker, request_id), None)

    def _forget(self) -> None:
        excess = len(self._known) - self._capacity
        if excess <= 0:
            return
        finished = [key for key, known in self._known.items() if known.reply is not None]
        for key in finished[:excess]:
            del self._known[key]
