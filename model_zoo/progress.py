"""Progress bars of a build on standard error (rich, extra ``zoo``)."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bars:
    """One bar for each network in training, one line for each other step."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, text: str) -> None:
        """Says what happens now."""
        self._progress.console.print(text, highlight=False)

    def training(self, name: str) -> Callable[[int, int, float], None]:
        """Starts a bar; the function takes epochs done, epochs in all, and the mean loss."""
        task = self._progress.add_task(f"train {name}", total=None, note="")

        def show(done: int, total: int, loss: float) -> None:
            self._progress.update(task, completed=done, total=total, note=f"loss {loss:.3f}")

        return show
