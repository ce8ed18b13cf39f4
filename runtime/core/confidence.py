"""How sure a model is of its answer, as a calibrated probability.

Fails towards safety: what is empty, not finite, or has a single class says nothing about
confidence, so it is marked invalid, never confident, and no measure raises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.generic]
MIN_CLASSES = 2


@dataclass(frozen=True, slots=True)
class Confidence:
    """The chosen label of one example and how sure it is.

    ``probability`` is calibrated, of the chosen label; ``margin`` its distance to the runner-up;
    ``entropy`` is normalised to 0 (sure) .. 1 (uniform). When not ``is_valid`` there is no label
    and the other fields are at their unsure ends.
    """

    label: int | None
    probability: float
    margin: float
    entropy: float
    is_valid: bool


INVALID = Confidence(label=None, probability=0.0, margin=0.0, entropy=1.0, is_valid=False)


def softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities along the last axis of ``(..., classes)``; rows that are not finite become NaN.

    ``temperature`` > 0 divides the logits (Guo et al., ICML 2017).
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be above 0, not {temperature!r}")
    scaled = np.asarray(logits, np.float64) / temperature
    scaled = np.where(np.isfinite(scaled).all(axis=-1, keepdims=True), scaled, np.nan)
    powers: npt.NDArray[np.float64] = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def confidence_of(probabilities: Floats) -> Confidence:
    """Confidence of one example from its ``(classes,)`` probabilities; zeros are fine."""
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
    )


def confidence_of_batch(logits: Floats, temperature: float = 1.0) -> Confidence:
    """Confidence of a ``(batch, classes)`` answer: that of its least sure row.

    A batch climbs or stays as one, so the weakest row decides; one invalid row makes it invalid.
    Only a batch of one has a label.
    """
    is_batch = logits.ndim == 2 and logits.shape[0] > 0  # noqa: PLR2004 batch and classes
    if not is_batch or logits.shape[1] < MIN_CLASSES:
        return INVALID
    shares = softmax(logits, temperature)
    # A row that is NaN has the largest probability NaN, which is the smallest to argmin.
    weakest = confidence_of(shares[int(shares.max(axis=1).argmin())])
    return weakest if len(shares) == 1 else replace(weakest, label=None)
