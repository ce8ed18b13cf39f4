"""Small networks, trained with numpy alone: the same weights from the same seed on one machine.

For tasks of some ten thousand examples and networks of up to a million parameters: seconds to
minutes on two cores, without a training framework. The loss is the cross-entropy with target
probabilities, so that a network can learn from labels, from another network's opinion
(distillation; Hinton et al., 2015), or from both. AdamW (Loshchilov and Hutter, 2019), the rate
warming up over a tenth of the steps and falling by half a cosine after that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_zoo.small_layers import Array, Layer, Parameter
from runtime.core.confidence import softmax

Labels = npt.NDArray[np.int64]
Inputs = npt.NDArray[np.float32] | npt.NDArray[np.int32]
Augment = Callable[[Array, np.random.Generator], Array]
Progress = Callable[[int, int, float], None]
_FIRST_MOMENT, _SECOND_MOMENT, _TINY = 0.9, 0.999, 1e-8
_WARM_UP = 0.1
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Lesson:
    """How to train: ``rate`` is the highest learning rate; ``smoothing`` goes to all classes."""

    epochs: int
    batch: int = 64
    rate: float = 2e-3
    decay: float = 1e-2
    smoothing: float = 0.05

    def __post_init__(self) -> None:
        """Refuses what trains nothing.

        Raises:
            ValueError: a figure is out of range.
        """
        if self.epochs < 1 or self.batch < 1 or not 0 < self.rate < 1:
            raise ValueError(f"a lesson needs epochs, examples and a rate: {self}")
        if self.decay < 0 or not 0 <= self.smoothing < 1:
            raise ValueError(f"decay is at least 0, smoothing in 0 .. 1: {self}")


class SmallNet:
    """Layers, one after another; the last one gives a score (logit) for each class."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    @property
    def parameters(self) -> list[Parameter]:
        """All that is learned, from the first layer to the last."""
        return [parameter for layer in self.layers for parameter in layer.parameters]

    @property
    def num_parameters(self) -> int:
        """Numbers that are learned."""
        return sum(parameter.value.size for parameter in self.parameters)

    def forward(self, inputs: Inputs, random: np.random.Generator | None = None) -> Array:
        """(n, classes) logits; ``random`` while training."""
        values = inputs.astype(np.float32, copy=False)
        for layer in self.layers:
            values = layer.forward(values, random)
        return values

    def backward(self, gradient: Array) -> None:
        """Writes the gradient of every parameter, given that by the logits."""
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)

    def logits(self, inputs: Inputs) -> Array:
        """(n, classes) logits of any number of examples."""
        parts = [
            self.forward(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)
        ]
        return np.concatenate(parts)


def targets_of(
    labels: Labels, num_classes: int, teacher: Array | None = None, *, trust: float = 0.5
) -> Array:
    """(n, classes) probabilities to learn: the labels, or ``trust`` of it a teacher's opinion.

    ``teacher`` are its logits of the same examples.
    """
    known = np.eye(num_classes, dtype=np.float32)[labels]
    if teacher is None:
        return known
    return ((1 - trust) * known + trust * softmax(teacher)).astype(np.float32)


def loss_and_gradient(logits: Array, targets: Array) -> tuple[float, Array]:
    """Mean cross-entropy in nats, and its gradient by the logits."""
    shares = softmax(logits)
    loss = -(targets * np.log(np.maximum(shares, 1e-12))).sum(axis=1).mean()
    return float(loss), ((shares - targets) / len(logits)).astype(np.float32)


def fit(
    net: SmallNet,
    inputs: Inputs,
    targets: Array,
    lesson: Lesson,
    *,
    seed: int,
    augment: Augment | None = None,
    progress: Progress = lambda _epoch, _epochs, _loss: None,
) -> float:
    """Trains ``net`` in place; returns the mean loss of the last epoch.

    Args:
        net: with its first weights.
        inputs: (n, ...) as the first layer takes them.
        targets: (n, classes) probabilities, such as ``targets_of`` makes.
        lesson: how long and how fast.
        seed: of order, augmentation and dropout.
        augment: other versions of a batch, drawn anew in every epoch.
        progress: called after every epoch with its number, their number, and its loss.

    Raises:
        ValueError: no examples, or not as many targets, or the loss is not finite any more.
    """
    if not len(inputs) or len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} examples and {len(targets)} targets: nothing to learn")
    random = np.random.default_rng(seed)
    smooth = (1 - lesson.smoothing) * targets + lesson.smoothing / targets.shape[1]
    optimizer = _AdamW(net.parameters, lesson, -(-len(inputs) // lesson.batch) * lesson.epochs)
    loss = 0.0
    for epoch in range(lesson.epochs):
        order = random.permutation(len(inputs))
        total = 0.0
        for start in range(0, len(order), lesson.batch):
            chosen = order[start : start + lesson.batch]
            batch = inputs[chosen]
            if augment is not None:
                batch = augment(batch.astype(np.float32), random)
            step, gradient = loss_and_gradient(net.forward(batch, random), smooth[chosen])
            net.backward(gradient.astype(np.float32))
            optimizer.step()
            total += step * len(chosen)
        loss = total / len(inputs)
        if not np.isfinite(loss):
            raise ValueError(f"the loss is {loss} after epoch {epoch + 1}: use a lower rate")
        progress(epoch + 1, lesson.epochs, loss)
    return loss


class _AdamW:
    """The optimizer's state: running means of gradients and of their squares."""

    def __init__(self, parameters: list[Parameter], lesson: Lesson, num_steps: int) -> None:
        self._parameters, self._lesson, self._num_steps = parameters, lesson, num_steps
        self._means = [np.zeros_like(parameter.value) for parameter in parameters]
        self._squares = [np.zeros_like(parameter.value) for parameter in parameters]
        self._done = 0

    def step(self) -> None:
        self._done += 1
        rate = self._lesson.rate * self._share()
        for parameter, mean, square in zip(
            self._parameters, self._means, self._squares, strict=True
        ):
            gradient = parameter.gradient
            np.add(mean, (1 - _FIRST_MOMENT) * (gradient - mean), out=mean)
            np.add(square, (1 - _SECOND_MOMENT) * (gradient * gradient - square), out=square)
            # Both start at 0; what is missing of them is known.
            scale = rate / (1 - _FIRST_MOMENT**self._done)
            spread = np.sqrt(square / np.float32(1 - _SECOND_MOMENT**self._done))
            if parameter.decays:
                parameter.value *= np.float32(1 - rate * self._lesson.decay)
            parameter.value -= np.float32(scale) * mean / (spread + np.float32(_TINY))

    def _share(self) -> float:
        warm = max(1.0, _WARM_UP * self._num_steps)
        if self._done <= warm:
            return float(self._done / warm)
        return float(
            0.5 + 0.5 * np.cos(np.pi * (self._done - warm) / max(1.0, self._num_steps - warm))
        )
