"""How fast model bytes may travel: beside inference, transfers take only what they are given.

Rules of this file:
  * all transfers share one token bucket, and each takes a small chunk at a time: they get equal
    shares, and no burst is longer than ``BURST_S``, however many there are;
  * what does not find a place is told when to come again, and costs nothing until then;
  * a peer that sends less than a minimum rate is given up after a stated time, however it spreads
    its bytes; waiting that we chose ourselves does not count against it;
  * time is passed in.

The bucket is a token bucket (RFC 2697 has the idea) that grants at once and lets the taker wait
until its tokens would have come: takers are served in the order in which they ask.
"""

from __future__ import annotations

from runtime.errors import OverloadedError

# 50 ms of bytes at a time: an inference waits no longer than that for a transfer's chunk.
BURST_S = 0.05
MIN_CHUNK_BYTES = 1024
MAX_CHUNK_BYTES = 65_536
MIN_RETRY_S, MAX_RETRY_S = 1.0, 60.0


class TokenBucket:
    """Bytes a second for all who take from it; None: no limit.

    Raises:
        ValueError: a rate that is not above 0.
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        if bytes_per_s is not None and not bytes_per_s > 0:
            raise ValueError(f"a rate of {bytes_per_s!r} bytes/s moves nothing")
        self._bytes_per_s = bytes_per_s
        # The instant by which all that was granted will have been paid for.
        self._paid_s = float("-inf")

    @property
    def chunk_bytes(self) -> int:
        """How much to take at a time."""
        if self._bytes_per_s is None:
            return MAX_CHUNK_BYTES
        chunk = int(self._bytes_per_s * BURST_S)
        return max(MIN_CHUNK_BYTES, min(MAX_CHUNK_BYTES, chunk))

    def take(self, num_bytes: int, now_s: float) -> float:
        """Grants so many bytes; returns how long to wait, in s, before they are sent."""
        if self._bytes_per_s is None:
            return 0.0
        begins_s = max(self._paid_s, now_s)
        self._paid_s = begins_s + num_bytes / self._bytes_per_s
        return begins_s - now_s


class Places:
    """How many transfers go on at once, and how much they still have to move.

    Raises:
        ValueError: less than one place.
    """

    def __init__(self, max_transfers: int, bytes_per_s: float | None) -> None:
        if max_transfers < 1:
            raise ValueError(f"{max_transfers} places let nothing through")
        self._max_transfers, self._bytes_per_s = max_transfers, bytes_per_s
        self._left: dict[int, int] = {}
        self._number = 0

    @property
    def num_transfers(self) -> int:
        """Transfers in progress."""
        return len(self._left)

    def enter(self, num_bytes: int) -> int:
        """Takes a place for so many bytes; returns its number.

        Raises:
            OverloadedError: all are taken; ``retry_after_ms`` is when one may be free.
        """
        if len(self._left) >= self._max_transfers:
            raise OverloadedError(
                f"{len(self._left)} transfers are in progress: come again later",
                retry_after_ms=self._retry_after_s() * 1000,
            )
        self._number += 1
        self._left[self._number] = num_bytes
        return self._number

    def moved(self, place: int, num_bytes: int) -> None:
        """So many bytes of it have gone."""
        self._left[place] = max(0, self._left[place] - num_bytes)

    def leave(self, place: int) -> None:
        """Gives the place back, whatever has become of the transfer."""
        del self._left[place]

    def _retry_after_s(self) -> float:
        if self._bytes_per_s is None:
            return MIN_RETRY_S
        # All go at equal speed: the one with least left is the first to leave.
        first_s = min(self._left.values()) * len(self._left) / self._bytes_per_s
        return max(MIN_RETRY_S, min(MAX_RETRY_S, first_s))


class RateFloor:
    """How long a peer may still keep us waiting: ``patience_s``, earned back by what it sends.

    All in all it can take ``patience_s`` and a second for each ``min_bytes_per_s``, no more.

    Raises:
        ValueError: a patience or rate that is not above 0.
    """

    def __init__(self, *, patience_s: float, min_bytes_per_s: float) -> None:
        if not (patience_s > 0 and min_bytes_per_s > 0):
            raise ValueError("patience and minimum rate have to be above 0")
        self._patience_s, self._min_bytes_per_s = patience_s, min_bytes_per_s
        self._left_s = patience_s

    @property
    def left_s(self) -> float:
        """What the next wait may take at most."""
        return self._left_s

    def heard(self, num_bytes: int, waited_s: float) -> bool:
        """So much came after such a wait; whether the peer is still fast enough."""
        earned_s = num_bytes / self._min_bytes_per_s
        self._left_s = max(0.0, min(self._patience_s, self._left_s - waited_s + earned_s))
        return self._left_s > 0
