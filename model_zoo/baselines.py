"""Small networks to begin with, for each kind of task: what a `Student` starts from.

Each function returns a maker, which draws the first weights from the generator that it is given.
Mean and standard deviation of the train part go into the network, and so into its file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_zoo.small_layers import (
    Conv1d,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    NgramBag,
    Relu,
    Standardize,
)
from model_zoo.small_nets import SmallNet
from model_zoo.task_data import Part

Make = Callable[[np.random.Generator], SmallNet]
# Convolutions beyond these see few steps and skip none.
_NUM_STRIDED = 2


def mlp(part: Part, classes: int, hidden: tuple[int, ...], *, dropout: float = 0.1) -> Make:
    """Dense layers over all values of an example: pictures, rows of a table."""
    values = part.inputs.astype(np.float32, copy=False)
    mean, std = values.mean(axis=0), values.std(axis=0)
    # What hardly ever changes, such as the corner of a picture, would become huge when it does.
    std = np.maximum(std, 0.1 * std.max(initial=0)) if part.inputs.ndim > 2 else std  # noqa: PLR2004
    size = int(np.prod(part.inputs.shape[1:]))

    def make(random: np.random.Generator) -> SmallNet:
        layers: list[Layer] = [Standardize(mean, std), Flatten()]
        given = size
        for width in hidden:
            layers += [Dense(given, width, random), Relu(), Dropout(dropout)]
            given = width
        return SmallNet([*layers, Dense(given, classes, random)])

    return make


def cnn(
    part: Part,
    classes: int,
    filters: tuple[int, ...],
    *,
    width: int = 5,
    stride: int = 2,
    dropout: float = 0.2,
) -> Make:
    """Convolutions over the steps of a series, the mean and the maximum of what they find.

    The first two convolutions take each ``stride``-th step.

    Raises:
        ValueError: the series are too short for so many convolutions.
    """
    steps, channels = part.inputs.shape[1:]
    for number in range(len(filters)):
        steps = (steps - width) // (stride if number < _NUM_STRIDED else 1) + 1
        if steps < 1:
            raise ValueError(
                f"series of {part.inputs.shape[1]} steps are too short for {len(filters)} "
                f"convolutions of width {width}; take fewer or narrower ones, or longer windows"
            )
    mean, std = part.inputs.mean(axis=(0, 1)), part.inputs.std(axis=(0, 1))

    def make(random: np.random.Generator) -> SmallNet:
        layers: list[Layer] = [Standardize(mean, std)]
        given = channels
        for number, size in enumerate(filters):
            step = stride if number < _NUM_STRIDED else 1
            layers += [Conv1d(given, size, width, random, stride=step), Relu()]
            given = size
        layers += [GlobalPool(), Dropout(dropout), Dense(2 * given, classes, random)]
        return SmallNet(layers)

    return make


def ngrams(
    classes: int, lengths: tuple[int, ...], buckets: int, *, hidden: int = 0, dropout: float = 0.2
) -> Make:
    """Hashed n-grams of a text; with ``hidden`` values between them and the classes."""

    def make(random: np.random.Generator) -> SmallNet:
        if not hidden:
            return SmallNet([NgramBag(lengths, buckets, classes, random)])
        bag = NgramBag(lengths, buckets, hidden, random)
        return SmallNet([bag, Relu(), Dropout(dropout), Dense(hidden, classes, random)])

    return make
