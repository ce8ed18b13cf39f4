"""``tierwise rollout watch``: lines that are written over on a terminal, elsewhere what is new."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from tierwise.cli.output import say
from tierwise.cloud_client import CloudClient
from tierwise.rollout_view import report, told_line

_DONE = "done"
_MAX_EVENTS = 6


async def watch(client: CloudClient, path: str, *, as_json: bool) -> int:
    """Shows a rollout until it has ended; 0 if it is done, else 1."""
    screen = _Screen() if sys.stdout.isatty() and not as_json else None
    status: dict[str, Any] = {}
    async for name, value in client.events(f"{path}/events"):
        if as_json:
            say(json.dumps({"event": name, **value}, ensure_ascii=False))
        elif name == "audit":
            line = told_line(value)
            if screen:
                screen.add(line)
            elif not value["device"]:
                say(line)
        if name == "status":
            status = value
            if screen:
                screen.show(report(status))
        sys.stdout.flush()
    if not as_json and screen is None:
        for line in report(status):
            say(line)
    return 0 if status.get("phase") == _DONE else 1


class _Screen:
    """Lines at the end of a terminal that are written over."""

    def __init__(self) -> None:
        self._num, self._latest = 0, list[str]()

    def add(self, line: str) -> None:
        """Something has happened: shown with the next status."""
        self._latest = [*self._latest, line][-_MAX_EVENTS:]

    def show(self, lines: list[str]) -> None:
        """The status, and below it what has happened last."""
        width, height = shutil.get_terminal_size()
        # A line that wraps, or scrolls away, cannot be written over.
        shown = [line[: width - 1] for line in [*lines, *self._latest]][: height - 1]
        back = f"\x1b[{self._num}F\x1b[J" if self._num else ""
        sys.stdout.write(back + "".join(f"{line}\n" for line in shown))
        self._num = len(shown)
