"""Progress of long work on standard error: a bar on a terminal, nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Shows(Protocol):
    """Takes what is done, how much there is, and what it is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Moves the bar."""
        ...


@contextmanager
def progress_bar(what: str) -> Iterator[Shows]:
    """A function that moves a bar; the bar is gone at the end.

    Without rich (extra ``demo``) or a terminal there is none.
    """
    if not sys.stderr.isatty():
        yield _nothing
        return
    try:
        from rich.console import Console  # noqa: PLC0415 an extra
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        yield _nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        task = bars.add_task(what, total=None)

        def show(done: int, total: int, what: str = "") -> None:
            bars.update(task, completed=done, total=total or None, description=what or None)

        yield show


def _nothing(done: int, total: int, what: str = "") -> None:
    del done, total, what
