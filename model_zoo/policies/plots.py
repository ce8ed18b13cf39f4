"""Pictures of an evaluation: deferral curve, reliability diagrams, waterfall (extra ``plots``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model_zoo.policies.evaluate import Curve, Evaluation, calibrated, partition
from model_zoo.policies.predictions import Predictions
from model_zoo.policies.tables import Floats
from runtime.errors import StartError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INSTALL_PLOTS = "Pictures need the extra `plots`: pip install 'tierwise[plots]'"
NUM_BINS = 10
# Readable for people who do not see all colours (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def draw(
    path: Path, evaluation: Evaluation, curve: Curve, predictions: Predictions, seed: int
) -> None:
    """Writes the picture; the suffix of ``path`` is its format.

    Raises:
        StartError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise StartError(INSTALL_PLOTS) from error
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    deferral, reliability, waterfall = figure.subplots(1, 3)
    _deferral(deferral, curve)
    _reliability(reliability, predictions, seed)
    _waterfall(waterfall, evaluation)
    figure.suptitle(
        f"{evaluation.dataset}: loss against the top tier <= {evaluation.max_loss:g}, "
        f"{evaluation.num_labels} labels, delta {evaluation.delta:g}"
    )
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise StartError(f"the picture {path} cannot be written: {error}") from error


def _deferral(axes: Axes, curve: Curve) -> None:
    axes.plot(curve.oracle_cost, curve.oracle_accuracy, color=GREEN, label="oracle")
    axes.plot(curve.cost, curve.accuracy, ".-", color=BLUE, label="fitted")
    ends = np.asarray([curve.lowest, curve.top])
    axes.plot(ends[:, 0], ends[:, 1], "--", color=GREY, label="random")
    axes.plot(*curve.top, "s", color=ORANGE, label="top tier alone")
    axes.set(
        title="Deferral curve", xlabel="cost (top tier alone = 1)", ylabel="accuracy", xlim=(0, 1.1)
    )
    axes.legend()


def _reliability(axes: Axes, predictions: Predictions, seed: int) -> None:
    train, held = partition(predictions, seed)
    colours = (BLUE, ORANGE, GREEN, GREY)
    for tier, name in enumerate(predictions.tiers):
        colour = colours[tier % len(colours)]
        before = np.clip(held.predictions.score[tier], 0, 1)
        axes.plot(*_binned(before, held.correct[tier]), "o:", color=colour, label=f"{name}, raw")
        after = calibrated(train, held, tier)
        axes.plot(*_binned(after, held.correct[tier]), "s-", color=colour, label=f"{name}, fitted")
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axes.set(title="Reliability", xlabel="stated chance of being right", ylabel="share right")
    axes.legend(fontsize="small")


def _binned(chance: Floats, correct: Floats) -> tuple[Floats, Floats]:
    bins = np.minimum((chance * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    used = counts > 0
    stated = np.bincount(bins, weights=chance, minlength=NUM_BINS)[used] / counts[used]
    right = np.bincount(bins, weights=correct, minlength=NUM_BINS)[used] / counts[used]
    return stated, right


def _waterfall(axes: Axes, evaluation: Evaluation) -> None:
    steps = {
        "oracle": evaluation.cost_oracle,
        "hindsight": evaluation.cost_hindsight,
        "certified": evaluation.cost_mean,
        "top tier": 1.0,
    }
    bars = axes.bar(list(steps), list(steps.values()), color=[GREEN, GREY, BLUE, ORANGE])
    axes.bar_label(bars, fmt="%.3f")
    axes.set(
        title=f"Waterfall: {100 * evaluation.savings_captured:.0f} % of the savings captured",
        ylabel="mean cost (top tier alone = 1)",
        ylim=(0, 1.1),
    )
