"""Layers of small networks in numpy: what each computes, and the gradient of it.

Rules of this file:
  * the first axis is the examples; a series is ``(n, steps, channels)``;
  * ``forward`` keeps what ``backward`` needs, so one layer serves one batch at a time;
  * ``backward`` takes the gradient of the loss by the output, writes those of its parameters, and
    returns the gradient by the input;
  * whatever is random comes from the generator that is passed in, and everything else is the same
    in every run on the same machine.

A network of them is trained by ``model_zoo.small_nets`` and written as ONNX by
``model_zoo.small_onnx``.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
# 2**31 - 1, a prime: codes below 2**21 times multipliers below it fit 64 bits, also five of them.
HASH_PRIME = 2_147_483_647
MAX_CODE = 0x10FFFF


class Parameter:
    """What is learned: ``value``, and the latest ``gradient`` of the loss by it."""

    def __init__(self, value: npt.NDArray[np.floating], *, decays: bool = True) -> None:
        self.value = value.astype(np.float32)
        self.gradient = np.zeros_like(self.value)
        self.decays = decays


class Layer(Protocol):
    """One step of a network."""

    @property
    def parameters(self) -> list[Parameter]:
        """All that is learned; none for most layers."""
        ...

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """What comes out; ``random`` is there while the network is trained, and only then."""
        ...

    def backward(self, gradient: Array) -> Array:
        """The gradient by the input of the latest ``forward``."""
        ...


class _Plain:
    """A layer that learns nothing."""

    parameters: list[Parameter] = []  # noqa: RUF012 - never changed


class Standardize(_Plain):
    """``(x - mean) / std`` with fixed figures, so that device and cloud cannot differ in them.

    ``mean`` and ``std`` are shaped as an example, or as its last axis. A ``std`` of 0 counts as 1:
    what never changes says nothing.
    """

    def __init__(self, mean: Array, std: Array) -> None:
        self.mean = mean.astype(np.float32)
        self.inverse = (1 / np.where(std > 0, std, 1)).astype(np.float32)

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """Standardized values."""
        del random
        return (inputs - self.mean) * self.inverse

    def backward(self, gradient: Array) -> Array:
        """Scaled back."""
        return gradient * self.inverse


class Flatten(_Plain):
    """``(n, ...)`` to ``(n, values)``."""

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """One row an example."""
        del random
        self._shape = inputs.shape
        return inputs.reshape(len(inputs), -1)

    def backward(self, gradient: Array) -> Array:
        """In the shape that came in."""
        return gradient.reshape(self._shape)


class Relu(_Plain):
    """``max(x, 0)``."""

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """What is above 0."""
        del random
        self._above = inputs > 0
        return inputs * self._above

    def backward(self, gradient: Array) -> Array:
        """Nothing where nothing came through."""
        return gradient * self._above


class Dropout(_Plain):
    """Leaves out a share of values while training; does nothing afterwards (Srivastava, 2014)."""

    def __init__(self, share: float) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"a share to leave out lies in 0 .. 1, this is {share}")
        self.share = share

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """The values, some of them 0 and the others larger to make up for it."""
        if random is None:
            self._kept = np.ones((), np.float32)
        else:
            kept = random.random(inputs.shape, np.float32) >= self.share
            self._kept = (kept / (1 - self.share)).astype(np.float32)
        return inputs * self._kept

    def backward(self, gradient: Array) -> Array:
        """Nothing where something was left out."""
        return gradient * self._kept


class Dense:
    """``x @ weight + bias`` of ``(n, inputs)``; weights as He et al. (2015) start them."""

    def __init__(self, num_inputs: int, num_outputs: int, random: np.random.Generator) -> None:
        spread = np.sqrt(2 / num_inputs)
        self.weight = Parameter(random.normal(0, spread, (num_inputs, num_outputs)))
        self.bias = Parameter(np.zeros(num_outputs, np.float32), decays=False)

    @property
    def parameters(self) -> list[Parameter]:
        """Weight and bias."""
        return [self.weight, self.bias]

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """(n, outputs)."""
        del random
        self._inputs = inputs
        return inputs @ self.weight.value + self.bias.value

    def backward(self, gradient: Array) -> Array:
        """(n, inputs)."""
        self.weight.gradient = self._inputs.T @ gradient
        self.bias.gradient = gradient.sum(axis=0)
        return gradient @ self.weight.value.T


class Conv1d:
    """A convolution over the steps of ``(n, steps, channels)``, without padding.

    ``(n, (steps - width) // stride + 1, outputs)`` comes out.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        width: int,
        random: np.random.Generator,
        *,
        stride: int = 1,
    ) -> None:
        spread = np.sqrt(2 / (width * num_inputs))
        self.weight = Parameter(random.normal(0, spread, (width * num_inputs, num_outputs)))
        self.bias = Parameter(np.zeros(num_outputs, np.float32), decays=False)
        self.num_inputs, self.width, self.stride = num_inputs, width, stride

    @property
    def parameters(self) -> list[Parameter]:
        """Weight and bias."""
        return [self.weight, self.bias]

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """Each window of the series times the weights."""
        del random
        num, steps, channels = inputs.shape
        self._shape = inputs.shape
        positions = (steps - self.width) // self.stride + 1
        windows = np.empty((num, positions, self.width, channels), np.float32)
        for offset in range(self.width):
            windows[:, :, offset] = self._at(inputs, offset, positions)
        self._windows = windows.reshape(num * positions, self.width * channels)
        found: Array = self._windows @ self.weight.value + self.bias.value
        return found.reshape(num, positions, -1)

    def backward(self, gradient: Array) -> Array:
        """Every step gets what the windows that it was in say."""
        num, positions, outputs = gradient.shape
        flat = gradient.reshape(num * positions, outputs)
        self.weight.gradient = self._windows.T @ flat
        self.bias.gradient = flat.sum(axis=0)
        windows = (flat @ self.weight.value.T).reshape(num, positions, self.width, self.num_inputs)
        found = np.zeros(self._shape, np.float32)
        for offset in range(self.width):
            part = self._at(found, offset, positions)
            part += windows[:, :, offset]
        return found

    def _at(self, series: Array, offset: int, positions: int) -> Array:
        """A view: the step at ``offset`` in each window."""
        end = offset + (positions - 1) * self.stride + 1
        return series[:, offset : end : self.stride]


class GlobalPool(_Plain):
    """Mean and maximum over the steps: ``(n, steps, channels)`` to ``(n, 2 * channels)``."""

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """All means, then all maxima."""
        del random
        self._shape = inputs.shape
        self._largest = inputs.argmax(axis=1)
        return np.concatenate([inputs.mean(axis=1), inputs.max(axis=1)], axis=1)

    def backward(self, gradient: Array) -> Array:
        """The mean's share to every step, the maximum's to the step that it came from."""
        num, steps, channels = self._shape
        found = np.repeat(gradient[:, None, :channels] / steps, steps, axis=1)
        rows, columns = np.arange(num)[:, None], np.arange(channels)[None]
        found[rows, self._largest, columns] += gradient[:, channels:]
        return found.astype(np.float32, copy=False)


class NgramBag:
    """The mean of what was learned of every n-gram: ``(n, length)`` codes to ``(n, outputs)``.

    Codes are whole numbers, 0 behind the end of a text. An n-gram is hashed into one of ``buckets``
    rows of its length's part of the table; the same arithmetic is done in the ONNX file. Source of
    the idea: Joulin et al., "Bag of tricks for efficient text classification" (2017).
    """

    def __init__(
        self,
        lengths: tuple[int, ...],
        buckets: int,
        num_outputs: int,
        random: np.random.Generator,
    ) -> None:
        if not lengths or max(lengths) > 5 or min(lengths) < 1:  # noqa: PLR2004 - see HASH_PRIME
            raise ValueError(f"n-grams have 1 to 5 characters, not {lengths}")
        self.lengths, self.buckets = lengths, buckets
        self.multipliers = [random.integers(1, HASH_PRIME, length) for length in lengths]
        rows = buckets * len(lengths)
        self.table = Parameter(random.normal(0, 0.1, (rows, num_outputs)), decays=False)
        self.bias = Parameter(np.zeros(num_outputs, np.float32), decays=False)

    @property
    def parameters(self) -> list[Parameter]:
        """The table and a bias."""
        return [self.table, self.bias]

    def rows_of(self, codes: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Row of the table for each n-gram (n, n-grams), and whether it is one."""
        whole = codes.astype(np.int64)
        rows, there = [], []
        for part, (length, by) in enumerate(zip(self.lengths, self.multipliers, strict=True)):
            count = whole.shape[1] - length + 1
            total = sum(whole[:, at : at + count] * by[at] for at in range(length))
            rows.append(total % HASH_PRIME % self.buckets + part * self.buckets)
            there.append(whole[:, length - 1 :] > 0)
        return np.concatenate(rows, axis=1), np.concatenate(there, axis=1)

    def forward(self, inputs: Array, random: np.random.Generator | None) -> Array:
        """(n, outputs); an empty text gives the bias."""
        del random
        self._shape = inputs.shape
        rows, there = self.rows_of(inputs)
        self._used, places = np.unique(rows, return_inverse=True)
        size = len(inputs) * len(self._used)
        cells = np.arange(len(inputs))[:, None] * len(self._used) + places.reshape(rows.shape)
        counts = np.bincount(cells.ravel(), there.ravel(), size).reshape(len(inputs), -1)
        self._shares = (counts / np.maximum(there.sum(axis=1), 1)[:, None]).astype(np.float32)
        found: Array = self._shares @ self.table.value[self._used] + self.bias.value
        return found

    def backward(self, gradient: Array) -> Array:
        """Nothing: codes cannot be learned."""
        self.table.gradient = np.zeros_like(self.table.value)
        self.table.gradient[self._used] = self._shares.T @ gradient
        self.bias.gradient = gradient.sum(axis=0)
        return np.zeros(self._shape, np.float32)
