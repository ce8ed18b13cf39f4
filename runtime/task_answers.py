"""What a task makes of a model's outputs, in the form that the tiers work with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from runtime.core.confidence import Confidence
from runtime.messages import Tensors


class Judged(NamedTuple):
    """How sure outputs are, what they say, and what of them leaves the tier.

    ``told`` is what an answer of one example says, as JSON; empty where the label says it all, and
    for batches.
    """

    confidence: Confidence
    told: str
    outputs: Tensors


class Together(NamedTuple):
    """What several members say as one; ``used`` are the places of those that count."""

    judged: Judged
    used: tuple[int, ...]


class TaskRule(Protocol):
    """What a task makes of outputs, the first axis of each the batch."""

    def judge(self, outputs: Tensors, agreement: float = 1.0) -> Judged:
        """Their confidence is that of the weakest row; invalid, and no error, where they are none.

        ``agreement`` is the share of the members that are behind them.
        """
        ...

    def judge_all(self, members: Sequence[Tensors], weights: Sequence[float]) -> Together | None:
        """Several members' outputs as one; None where none is usable, or where members vote."""
        ...
