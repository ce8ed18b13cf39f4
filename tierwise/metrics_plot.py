"""Answers as a picture: lines over time, or bars (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from model_zoo.policies.plots import INSTALL_PLOTS
from runtime.errors import StartError
from tierwise.cli.parser import UsageError

VALUES = {
    "escalations": "escalation_rate",
    "latency": "p99_ms",
    "accuracy": "accuracy",
    "cost": "cost_sum",
    "agreement": "agreement",
    "rollouts": "requests",
    "fleet": "silent_s",
}
TIMES = ("minute", "hour", "day")
# More lines or bars are unreadable.
MAX_LINES, MAX_BARS = 12, 40


def draw(
    path: Path, metric: str, by: Sequence[str], rows: Sequence[Mapping[str, Any]], *, value: str
) -> None:
    """Writes the picture of at least one row.

    Raises:
        StartError: matplotlib is not installed, or the file cannot be written.
        UsageError: the rows have no such number.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise StartError(INSTALL_PLOTS) from error
    value = value or VALUES[metric]
    numbers = [name for name, one in rows[0].items() if isinstance(one, int | float | None)]
    if value not in numbers:
        raise UsageError(f"--value {value!r} is none of {', '.join(numbers)}")
    time = next((name for name in TIMES if name in by), "")
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kept = [row for row in rows if row[value] is not None]
    if time:
        _lines(axes, kept, time, [name for name in by if name not in TIMES], value)
    else:
        _bars(axes, kept, by, value)
    axes.set(title=f"{metric}: {value}", ylabel=value)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StartError(f"the picture {path} cannot be written: {error}") from error


def _lines(
    axes: Any,  # noqa: ANN401 - matplotlib's
    rows: Sequence[Mapping[str, Any]],
    time: str,
    by: Sequence[str],
    value: str,
) -> None:
    lines: dict[str, list[tuple[datetime, float]]] = {}
    for row in rows:
        name = " ".join(str(row[one]) for one in (*by, "source") if one in row)
        at = datetime.fromisoformat(row[time])
        lines.setdefault(name, []).append((at, row[value]))
    largest = sorted(lines.items(), key=lambda line: -len(line[1]))[:MAX_LINES]
    for name, points in largest:
        points.sort()
        axes.plot(
            [at for at, _ in points], [number for _, number in points], marker=".", label=name
        )
    axes.figure.autofmt_xdate()
    if by:
        axes.legend(fontsize=8)


def _bars(
    axes: Any,  # noqa: ANN401 - matplotlib's
    rows: Sequence[Mapping[str, Any]],
    by: Sequence[str],
    value: str,
) -> None:
    shown = rows[:MAX_BARS]
    names = ["\n".join(str(row[one]) for one in (*by, "source") if one in row) for row in shown]
    places = range(len(shown))
    errors = None
    if {"low", "high"} <= set(shown[0] if shown else ()) and value in {"accuracy", "agreement"}:
        errors = [
            [row[value] - row["low"] for row in shown],
            [row["high"] - row[value] for row in shown],
        ]
    axes.bar(places, [row[value] for row in shown], yerr=errors, capsize=4)
    axes.set_xticks(list(places), names, fontsize=8)
