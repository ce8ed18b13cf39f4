"""Recorded round-trip times of every hop, from which lateness is simulated.

A trace is a CSV file whose header names tiers above the lowest; a column holds round trips in ms
from the tier below, without the tier's own work. An empty cell, ``lost`` or ``inf`` is a reply that
never came. Hops of one row were measured at the same time, so rows are drawn as they are.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from model_zoo.policies.predictions import Predictions
from model_zoo.policies.stages import Timing
from model_zoo.policies.tables import Floats
from runtime.errors import PolicyError

MAX_ROWS = 1_000_000
LOST = ("", "lost", "inf")


def read_trace(path: Path, tiers: tuple[str, ...]) -> Floats:
    """(rows, k - 1) round trips in ms of the hops to ``tiers[1:]``; infinite where lost.

    Raises:
        PolicyError: unreadable, a column is missing, or a cell is no time.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PolicyError(f"{path} cannot be read as a trace: {error}") from error
    head = [name.strip() for name in lines[0]] if lines else []
    missing = [tier for tier in tiers[1:] if tier not in head]
    if missing:
        raise PolicyError(
            f"{path} has no column {missing[0]!r}; a trace starts with a line of "
            f"{','.join(tiers[1:])}, then a line of round trips in ms for every measurement"
        )
    if not 1 < len(lines) <= MAX_ROWS:
        raise PolicyError(f"{path} has {max(0, len(lines) - 1)} measurements; 1 to {MAX_ROWS} work")
    columns = [head.index(tier) for tier in tiers[1:]]
    return np.asarray(
        [
            [_time(line, column, f"{path}:{number}") for column in columns]
            for number, line in enumerate(lines[1:], start=2)
        ]
    )


def _time(line: list[str], column: int, where: str) -> float:
    text = line[column].strip().lower() if column < len(line) else ""
    if text in LOST:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise PolicyError(f"{where}: {text[:40]!r} is no time in ms")
    return value


def timing_of(
    predictions: Predictions, trace: Floats, budget_ms: float, *, load: float, seed: int
) -> Timing:
    """Times of every example: a row of the trace drawn for each, times ``load``."""
    drawn = np.random.default_rng(seed).integers(0, len(trace), predictions.num_examples)
    hops = np.zeros_like(predictions.score)
    hops[1:] = trace[drawn].T * load
    service = predictions.service_ms
    return Timing(hops, np.zeros_like(hops) if service is None else service, budget_ms)
