"""Runs a tier whose wall clock somebody else sets: ``python -m chaos.clocked CLOCK MODULE ...``.

CLOCK is a file with the number of days that the clock is ahead. Monotonic time is left alone, as it
is where an operator or a time server sets a clock.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

_LOOK_EVERY_S = 0.1
_DAY_S = 86_400.0


class Clock:
    """The time of the machine, and what the file says on top."""

    def __init__(self, path: Path) -> None:
        self._path, self._time = path, time.time
        self._ahead_s, self._looked_s = 0.0, float("-inf")

    def __call__(self) -> float:
        """Unix seconds; a file that is being written is looked at again a moment later."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            said = self._path.read_text()
            self._ahead_s = float(said) * _DAY_S if said else self._ahead_s
        return self._time() + self._ahead_s


if __name__ == "__main__":
    time.time = Clock(Path(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
