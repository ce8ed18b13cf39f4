"""How long a model's process is left ended before it is started again.

Each end doubles the wait up to a limit, so that a model which crashes on every start takes next to
nothing from the others; one that ran well for a while starts over with a short wait. No jitter:
what is shared here is one machine, and its processes end one by one.
"""

from __future__ import annotations


class Restarts:
    """The waits of one process; the caller says how long it ran."""

    def __init__(
        self, *, min_s: float = 0.1, max_s: float = 30.0, healthy_after_s: float = 60.0
    ) -> None:
        """Waits lie between ``min_s`` and ``max_s``.

        Raises:
            ValueError: not ``0 < min_s <= max_s``.
        """
        if not 0 < min_s <= max_s:
            raise ValueError(f"0 < min_s <= max_s does not hold for {min_s!r} and {max_s!r}")
        self._min_s, self._max_s, self._healthy_after_s = min_s, max_s, healthy_after_s
        self._last_s = 0.0

    def wait_s(self, ran_s: float) -> float:
        """The wait after a process that ran for ``ran_s``; 0 where it did not even start."""
        if ran_s >= self._healthy_after_s:
            self._last_s = 0.0
        self._last_s = min(self._max_s, max(self._min_s, 2 * self._last_s))
        return self._last_s
