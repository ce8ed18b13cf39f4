"""The clocks of this machine."""

from __future__ import annotations

import time


class SystemClock:
    """The ``Clock`` of production."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed instant; never goes back."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since 1970 as this machine believes."""
        return time.time()
