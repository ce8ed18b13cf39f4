"""One key of a terminal, without Enter."""

from __future__ import annotations

import sys
import termios
import tty


def read_key() -> str:
    """The next key; the terminal is as before afterwards."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        return sys.stdin.read(1)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
