"""How long to wait before the next try."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


class Backoff:
    """Waits that grow about threefold up to a limit, each drawn at random.

    The very first wait is drawn as well ("decorrelated jitter"): when a broker restarts, all its
    agents lose it in the same instant and must not come back in the same instant.
    """

    def __init__(self, *, min_s: float, max_s: float, random: random.Random) -> None:
        """Waits lie between ``min_s`` and ``max_s``.

        Raises:
            ValueError: not ``0 < min_s <= max_s``.
        """
        if not 0 < min_s <= max_s:
            raise ValueError(f"0 < min_s <= max_s does not hold for {min_s!r} and {max_s!r}")
        self._min_s = min_s
        self._max_s = max_s
        self._random = random
        self._last_s = min_s

    def next_s(self) -> float:
        """The next wait in seconds."""
        self._last_s = self._random.uniform(self._min_s, min(self._max_s, 3 * self._last_s))
        return self._last_s

    def reset(self) -> None:
        """Starts over with short waits."""
        self._last_s = self._min_s
