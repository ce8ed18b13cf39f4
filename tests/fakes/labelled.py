"""Made-up predictions of several tiers on labelled examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_zoo.policies.predictions import Predictions
from runtime.core.beliefs import believed

NAMES = ("edge", "regional", "metro", "cloud")
DIGITS = 3


def names_of(num_tiers: int) -> tuple[str, ...]:
    """The lowest and the top tier, with others between them."""
    return (*NAMES[: num_tiers - 1], NAMES[-1])


def by_hand(
    label: Sequence[int],
    predicted: Sequence[Sequence[int]],
    score: Sequence[Sequence[float]],
    price: Sequence[float],
    num_labels: int = 2,
) -> Predictions:
    """Predictions as they are written down, the lowest tier first."""
    return Predictions(
        tiers=names_of(len(price)),
        label_names=tuple(f"class{index}" for index in range(num_labels)),
        label=np.asarray(label, np.int64),
        price=np.asarray(price, np.float64),
        predicted=np.asarray(predicted, np.int64),
        score=np.asarray(score, np.float64),
        example_id=np.asarray([f"e{row}" for row in range(len(label))], np.bytes_),
        source="by-hand.npz",
    )


def sampled(
    seed: int,
    num_examples: int,
    *,
    accuracy: Sequence[float] = (0.75, 0.85, 0.95),
    price: Sequence[float] = (0.02, 0.3, 1.0),
    num_labels: int = 4,
) -> Predictions:
    """Tiers that are right as often as asked for, and surer where they are.

    Scores have few digits, so that many are equal and many lie on the edges of bins.
    """
    random = np.random.default_rng(seed)
    shape = (len(price), num_examples)
    label = random.integers(0, num_labels, num_examples)
    # A hard example is hard for everybody.
    hardness = random.random(num_examples)
    luck = 0.7 * hardness + 0.3 * random.random(shape)
    ranks = luck.argsort(axis=1).argsort(axis=1) / num_examples
    right = ranks < np.asarray(accuracy)[:, None]
    other = (label + random.integers(1, num_labels, shape)) % num_labels
    score = np.clip(1 - 0.8 * luck + random.normal(0, 0.08, shape), 0, 1)
    return Predictions(
        tiers=names_of(len(price)),
        label_names=tuple(f"class{index}" for index in range(num_labels)),
        label=label,
        price=np.asarray(price, np.float64),
        predicted=np.where(right, label, other),
        score=np.round(score, DIGITS),
        example_id=np.asarray([f"{seed}-{row}" for row in range(num_examples)], np.bytes_),
        models={tier: f"{index:064x}" for index, tier in enumerate(names_of(len(price)), 1)},
        source=f"made-up-{seed}.npz",
    )


def believing(
    seed: int,
    num_examples: int,
    *,
    strength: Sequence[float] = (1.4, 1.4, 1.6),
    price: Sequence[float] = (0.02, 0.3, 1.0),
    num_labels: int = 5,
) -> Predictions:
    """Tiers that know nothing of one another's mistakes, with all their probabilities.

    Each sees every class through noise of its own, the right one ``strength`` higher, and says what
    follows from that; so its probabilities are right, and two see more than one.
    """
    random = np.random.default_rng(seed)
    label = random.integers(0, num_labels, num_examples)
    shape = (len(price), num_examples, num_labels)
    signal = np.asarray(strength)[:, None, None] * (np.arange(num_labels) == label[:, None])
    powers = np.exp(np.asarray(strength)[:, None, None] * (signal + random.normal(size=shape)))
    shares = powers / powers.sum(axis=2, keepdims=True)
    return Predictions(
        tiers=names_of(len(price)),
        label_names=tuple(f"class{index}" for index in range(num_labels)),
        label=label,
        price=np.asarray(price, np.float64),
        predicted=shares.argmax(axis=2),
        score=shares.max(axis=2),
        example_id=np.asarray([f"{seed}-{row}" for row in range(num_examples)], np.bytes_),
        beliefs=believed(shares),
        models={tier: f"{index:064x}" for index, tier in enumerate(names_of(len(price)), 1)},
        source=f"believing-{seed}.npz",
    )
