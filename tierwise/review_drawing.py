"""Inputs of an item on a terminal: pictures in characters, series as sparklines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud_tier.reviews.rendering import Pixels, picture_of, series_of, shown
from runtime.core.reasons import plain
from runtime.messages import Tensors
from tierwise.pictures import SHADES

MAX_COLUMNS, MAX_ROWS = 56, 28
BARS = "▁▂▃▄▅▆▇█"


def drawn_inputs(inputs: Tensors) -> str:
    """What there is to see, pictures first."""
    lines: list[str] = []
    for one in shown(inputs):
        shape = "x".join(map(str, one.array.shape))
        lines.append(f"{plain(one.name)} {one.array.dtype} {shape}")
        if one.kind == "picture":
            lines.append(picture_text(picture_of(one.array)))
        elif one.kind == "series":
            lines += [sparkline(line) for line in series_of(one.array)]
    return "\n".join(lines) or "no inputs here"


def picture_text(pixels: Pixels) -> str:
    """A picture in characters, about twice as many columns as rows."""
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels.astype(np.float64)  # noqa: PLR2004
    height, width = grey.shape
    scale = max(width * 2 / MAX_COLUMNS, height / MAX_ROWS, 1.0)
    rows = np.linspace(0, height - 1, max(1, round(height / scale))).round().astype(int)
    columns = np.linspace(0, width - 1, max(1, round(2 * width / scale))).round().astype(int)
    levels = (grey[np.ix_(rows, columns)] / 255 * (len(SHADES) - 1)).round().astype(int)
    return "\n".join("".join(SHADES[level] for level in row).rstrip() for row in levels)


def sparkline(line: Sequence[float | None]) -> str:
    """A series in bars; a gap where there is no number."""
    step = -(-len(line) // MAX_COLUMNS)
    values = line[:: max(1, step)]
    known = [value for value in values if value is not None]
    if not known:
        return " " * len(values)
    least, most = min(known), max(known)
    high = (most - least) or 1.0
    return "".join(
        " " if value is None else BARS[round((value - least) / high * (len(BARS) - 1))]
        for value in values
    )
