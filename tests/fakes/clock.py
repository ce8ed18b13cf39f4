from __future__ import annotations


class FakeClock:
    """A clock that stands still until the test moves it."""

    def __init__(self, *, monotonic_s: float = 1_000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wall_s(self) -> float:
        return self._wall_s

    def advance(self, seconds: float) -> None:
        """Moves both clocks on; a monotonic clock never goes back."""
        if seconds < 0:
            raise ValueError(f"time does not go back, so {seconds} s is no step")
        self._monotonic_s += seconds
        self._wall_s += seconds

    def set_wall_s(self, wall_s: float) -> None:
        """Sets the wall clock alone, as a time server or an operator does."""
        self._wall_s = wall_s
