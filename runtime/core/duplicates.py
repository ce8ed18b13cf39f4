"""One request, one computation, however often it arrives.

A copy with the same correlation data is a duplicate of the network and is ignored. A retry has new
correlation data: it joins the running work, or gets the finished reply again. A request id that
comes with another content is another request: many clients count theirs from 0 at every start, and
none may get the answer to a question that it did not ask.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Reply = TypeVar("Reply")
MAX_ATTEMPTS_KEPT = 16


class RequestKey(NamedTuple):
    """What makes two arrivals the same request; ``content`` is a digest of the body."""

    asker: str
    request_id: str
    content: bytes


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
    num_bytes: int = 0


class RecentRequests(Generic[Reply]):
    """The latest requests, at most ``capacity``, with at most ``max_bytes`` of finished replies.

    The oldest finished ones go first; what is worked on stays.
    """

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self._capacity, self._max_bytes = capacity, max_bytes
        self._num_bytes = 0
        self._known: OrderedDict[RequestKey, _Known[Reply]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def num_bytes(self) -> int:
        """Bytes of the replies that are kept."""
        return self._num_bytes

    def arrive(self, key: RequestKey, correlation: bytes) -> tuple[Arrival, Reply | None]:
        """Registers an arrival; a reply comes along when the request was finished before."""
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

    def finish(self, key: RequestKey, reply: Reply, num_bytes: int) -> list[bytes]:
        """Keeps the reply; returns the correlation data of everyone who waits for it."""
        known = self._known.get(key)
        if known is None or known.reply is not None:
            return []
        known.reply, known.num_bytes = reply, num_bytes
        self._num_bytes += num_bytes
        told = list(known.correlations)
        self._forget()
        return told

    def withdraw(self, key: RequestKey, correlation: bytes) -> bool:
        """One asker no longer waits; True, and forgotten, when nobody else waits for it either."""
        known = self._known.get(key)
        if known is None or known.reply is not None or correlation not in known.correlations:
            return False
        known.correlations.remove(correlation)
        if known.correlations:
            return False
        self.abandon(key)
        return True

    def abandon(self, key: RequestKey) -> list[bytes]:
        """Forgets a request, so that asking again starts afresh; returns who waited for it."""
        known = self._known.pop(key, None)
        if known is None:
            return []
        self._num_bytes -= known.num_bytes
        return known.correlations if known.reply is None else []

    def _forget(self) -> None:
        # Stops at the first that fits: what is worked on is little, so this looks at few.
        for key in self._over_the_limits():
            self._num_bytes -= self._known.pop(key).num_bytes

    def _over_the_limits(self) -> list[RequestKey]:
        """The oldest finished requests that have to go."""
        num_left, bytes_left = len(self._known), self._num_bytes
        over: list[RequestKey] = []
        for key, known in self._known.items():
            if num_left <= self._capacity and bytes_left <= self._max_bytes:
                break
            if known.reply is not None:
                over.append(key)
                num_left -= 1
                bytes_left -= known.num_bytes
        return over
