"""The Pareto front as a picture (extra ``plots``)."""

from __future__ import annotations

from pathlib import Path

from model_zoo.policies.plots import INSTALL_PLOTS, ORANGE
from runtime.core.placement.decide import Choice, one_of_each
from runtime.errors import StartError


def draw_front(path: Path, found: list[Choice], best: Choice, currency: str) -> None:
    """Cost by accuracy, a point for each setting on the front; its colour is the latency.

    Raises:
        StartError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise StartError(INSTALL_PLOTS) from error
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    placed = [one.placed() for one in found]
    points = axes.scatter(
        [one.cost for one in placed],
        [one.accuracy for one in placed],
        c=[one.latency[1].ms for one in placed],
        cmap="viridis",
    )
    figure.colorbar(points, label="p95 latency, ms")
    for one in (each.placed() for each in one_of_each(found)):
        axes.annotate(one.name, (one.cost, one.accuracy), fontsize=6)
    chosen = best.placed()
    axes.plot(chosen.cost, chosen.accuracy, "*", color=ORANGE, markersize=16, label="recommended")
    axes.set(xlabel=f"{currency} per million requests", ylabel="accuracy", title="Placements")
    axes.legend()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StartError(f"the picture {path} cannot be written: {error}") from error
