"""Several models' answers as one: weighted mean of calibrated probabilities.

Whoever is missing, late or not finite is left out and counted, never replaced by zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class MemberVote:
    """``(batch, classes)`` probabilities of one member; ``weight`` > 0."""

    name: str
    probabilities: npt.NDArray[np.float64]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Combined:
    """The ensemble's ``(batch, classes)`` probabilities and who made them.

    ``agreement`` is the smallest share, over the batch, of members whose own label is the combined
    one.
    """

    probabilities: npt.NDArray[np.float64]
    agreement: float
    members: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """``(batch, classes)`` logarithms of the probabilities; finite even where one is 0."""
        floor = np.finfo(np.float32).tiny
        return np.log(np.maximum(self.probabilities, floor)).astype(np.float32)


def is_usable(vote: MemberVote) -> bool:
    """Whether a vote is ``(batch, classes)`` of finite numbers >= 0 that sum to about 1."""
    shares = vote.probabilities
    if shares.ndim != 2 or shares.size == 0:  # noqa: PLR2004 batch and classes
        return False
    if not (np.isfinite(shares).all() and (shares >= 0).all() and vote.weight > 0):
        return False
    return bool(np.allclose(shares.sum(axis=1), 1.0, atol=1e-3))


def is_decided(votes: Sequence[MemberVote], missing_weight: float) -> bool:
    """Whether the chosen labels stand, whatever members of ``missing_weight`` would still say.

    At worst all of them are certain of the second best label (Gunasekaran et al., "Cocktail", NSDI
    2022, has it for majorities).
    """
    usable = [vote for vote in votes if is_usable(vote)]
    if not usable or len({vote.probabilities.shape for vote in usable}) > 1:
        return False
    total = np.sum([vote.weight * vote.probabilities for vote in usable], axis=0)
    if total.shape[1] < 2:  # noqa: PLR2004 with one class there is nothing to decide
        return False
    second, first = np.partition(total, -2, axis=1)[:, -2:].T
    return bool((first - second > missing_weight).all())


def combine(votes: Sequence[MemberVote]) -> Combined | None:
    """The weighted mean of the usable votes, or None when there is none.

    The first usable vote sets the shape; votes of another shape are left out.
    """
    usable = [vote for vote in votes if is_usable(vote)]
    if not usable:
        return None
    shape = usable[0].probabilities.shape
    used = [vote for vote in usable if vote.probabilities.shape == shape]
    weights = np.array([vote.weight for vote in used])
    stack = np.stack([vote.probabilities for vote in used])
    mean = np.tensordot(weights / weights.sum(), stack, axes=1)
    concurring = stack.argmax(axis=2) == mean.argmax(axis=1)
    names = tuple(vote.name for vote in used)
    return Combined(
        probabilities=mean,
        agreement=float(concurring.mean(axis=0).min()),
        members=names,
        left_out=tuple(vote.name for vote in votes if vote.name not in names),
    )
