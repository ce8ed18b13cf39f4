"""How sure a model is of its answer, as a calibrated probability.

Fails towards safety: what is empty, not finite, or has a single class says nothing about
confidence, so it is marked invalid, never confident, and no measure raises.

One answer of a few classes, which is what most requests are, is worked out in plain Python:
numpy's overhead a call is longer than the arithmetic. Both ways give the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from runtime.policy import Score

Floats = npt.NDArray[np.generic]
MIN_CLASSES = 2
# Up to here plain Python is quicker than numpy.
FEW_CLASSES = 64
# Wider floats than Python's own stay with numpy.
_DOUBLE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Confidence:
    """The chosen label of one example and how sure it is.

    ``probability`` is calibrated, of the chosen label; ``margin`` its distance to the runner-up;
    ``entropy`` is normalised to 0 (sure) .. 1 (uniform). ``energy`` is the temperature times the
    log-sum-exp of ``logits / temperature`` (Liu et al., NeurIPS 2020, without the minus): it
    grows with the sizes of the logits, which probabilities forget. ``agreement`` is the share of
    an ensemble's members that chose the label; a single model agrees with itself, 1.0. When not
    ``is_valid`` there is no label and the other fields are at their unsure ends.
    """

    label: int | None
    probability: float
    margin: float
    entropy: float
    is_valid: bool
    energy: float = 0.0
    agreement: float = 1.0

    def score(self, kind: Score) -> float:
        """The number that a table asks for; larger is surer, so entropy comes as ``1 - entropy``.

        What is not valid is less sure than anything.
        """
        if not self.is_valid:
            return -math.inf
        if kind == "probability":
            return self.probability
        if kind == "entropy":
            return 1.0 - self.entropy
        value: float = getattr(self, kind)
        return value


INVALID = Confidence(
    label=None,
    probability=0.0,
    margin=0.0,
    entropy=1.0,
    is_valid=False,
    energy=-math.inf,
    agreement=0.0,
)


def softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities along the last axis of ``(..., classes)``; rows that are not finite become NaN.

    ``temperature`` > 0 divides the logits (Guo et al., ICML 2017).
    """
    _check_temperature(temperature)
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = np.where(np.isfinite(scaled).all(axis=-1, keepdims=True), scaled, np.nan)
    powers: npt.NDArray[np.float64] = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, not {temperature!r}")


def confidence_of(probabilities: Floats) -> Confidence:
    """Confidence of one example from its ``(classes,)`` probabilities; zeros are fine.

    Without logits the energy is that of the logarithms: 0 when the probabilities sum to 1.
    """
    if probabilities.ndim != 1 or len(probabilities) < MIN_CLASSES:
        return INVALID
    values = np.asarray(probabilities, np.float64)
    total = float(values.sum())
    if not np.isfinite(total) or total <= 0 or float(values.min()) < 0:
        return INVALID
    shares = values / total
    label = int(shares.argmax())
    second, first = np.partition(shares, -2)[-2:]
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = float(-(shares * logs).sum() / np.log(len(shares)))
    return Confidence(
        label=label,
        probability=float(first),
        margin=float(first - second),
        entropy=min(1.0, max(0.0, entropy)),
        is_valid=True,
        energy=math.log(total),
    )


def confidence_of_batch(
    logits: Floats, temperature: float = 1.0, *, agreement: float = 1.0
) -> Confidence:
    """Confidence of a ``(batch, classes)`` answer: that of its least sure row.

    A batch climbs or stays as one, so the weakest row decides; one invalid row makes it invalid.
    Only a batch of one has a label. ``agreement`` is that of the members whose answer this is.
    """
    is_batch = logits.ndim == 2 and logits.shape[0] > 0  # noqa: PLR2004 batch and classes
    if not is_batch or logits.shape[1] < MIN_CLASSES:
        return INVALID
    if len(logits) == 1 and logits.shape[1] <= FEW_CLASSES and _is_plain(logits.dtype):
        return _confidence_of_row(logits[0].tolist(), temperature, agreement)
    return _confidence_of_rows(logits, temperature, agreement)


def _is_plain(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "f" and dtype.itemsize <= _DOUBLE_BYTES


def _confidence_of_rows(logits: Floats, temperature: float, agreement: float) -> Confidence:
    """The same for any batch, with numpy."""
    shares = softmax(logits, temperature)
    # A row that is NaN has the largest probability NaN, which is the smallest to argmin.
    row = int(shares.max(axis=1).argmin())
    weakest = confidence_of(shares[row])
    if not weakest.is_valid:
        return INVALID
    scaled = np.asarray(logits[row], np.float64) / temperature
    highest = scaled.max()
    energy = temperature * float(highest + np.log(np.exp(scaled - highest).sum()))
    label = weakest.label if len(shares) == 1 else None
    return replace(weakest, label=label, energy=energy, agreement=agreement)


def _confidence_of_row(logits: list[float], temperature: float, agreement: float) -> Confidence:
    """The same for one row of two and more, in plain Python."""
    _check_temperature(temperature)
    scaled = [value / temperature for value in logits]
    # One number that is not finite makes the sum so; a sum of many finite ones may overflow too.
    if not math.isfinite(sum(scaled)) and not all(map(math.isfinite, scaled)):
        return INVALID
    highest = max(scaled)
    powers = [math.exp(value - highest) for value in scaled]
    total = math.fsum(powers)
    top = max(powers)
    label = powers.index(top)
    # -sum(p log p) with p = power / total; a power of 0 adds nothing, as its p log p tends to 0.
    moment = sum(
        [power * (value - highest) for power, value in zip(powers, scaled, strict=True) if power]
    )
    log_total = math.log(total)
    entropy = (log_total - moment / total) / math.log(len(powers))
    powers[label] = 0.0
    return Confidence(
        label=label,
        probability=top / total,
        margin=(top - max(powers)) / total,
        entropy=min(1.0, max(0.0, entropy)),
        is_valid=True,
        energy=temperature * (highest + log_total),
        agreement=agreement,
    )
