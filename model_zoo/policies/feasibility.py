"""Whether any placement meets the targets, and if not, which one of them would have to give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_zoo.policies.path import Estimate
from runtime.errors import PolicyError
from runtime.policy import Targets


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One target given up, the least that it must be, and what meets the others then."""

    target: str
    asked: float
    possible: float
    placement: str
    accuracy: float
    late: float
    cost: float


class ImpossibleError(PolicyError):
    """No placement meets all targets; ``relaxations`` are the single ones that would help.

    ``gear`` names the budget and load that it is about; empty where there is only one.
    """

    def __init__(self, because: str, relaxations: tuple[Relaxation, ...], gear: str = "") -> None:
        self.because, self.relaxations = because, relaxations
        options = "".join(
            f"\n  possible with {one.target} {one.possible:.4g} instead of {one.asked:.4g}: "
            f"{one.placement}, accuracy {one.accuracy:.4f}, late {one.late:.4f}, "
            f"cost {one.cost:.3f}"
            for one in relaxations
        )
        super().__init__(
            f"impossible{f' for gear {gear}' if gear else ''}, because {because}"
            + (options or "\n  no single target that gives way makes it possible")
        )


def check_possible(
    estimates: Sequence[Estimate], targets: Targets, tiers: tuple[str, ...], *, gear: str = ""
) -> None:
    """Refuses targets that not even the training split's estimates meet; for one ``gear``.

    Raises:
        ImpossibleError: with what could be had instead.
    """
    if any(not _missed(estimate, targets) for estimate in estimates):
        return
    relaxations = []
    for name, asked in _asked(targets).items():
        others = [e for e in estimates if not _missed(e, targets) - {name}]
        if others:
            best = min(others, key=lambda e: (_value(e, name) * _sign(name), e.cost))
            relaxations.append(
                Relaxation(
                    target=name,
                    asked=asked,
                    possible=_value(best, name),
                    placement=best.placement.describe(tiers),
                    accuracy=best.accuracy,
                    late=best.late,
                    cost=best.cost,
                )
            )
    raise ImpossibleError(_because(estimates, targets, tiers), tuple(relaxations), gear)


def _asked(targets: Targets) -> dict[str, float]:
    every = {
        "max-loss": targets.max_loss,
        "min-accuracy": targets.min_accuracy,
        "max-late": targets.max_late,
        "max-cost": targets.max_cost,
    }
    return {name: asked for name, asked in every.items() if asked is not None}


def _value(estimate: Estimate, name: str) -> float:
    return {
        "max-loss": estimate.loss,
        "min-accuracy": estimate.accuracy,
        "max-late": estimate.late,
        "max-cost": estimate.cost,
    }[name]


def _sign(name: str) -> int:
    return -1 if name == "min-accuracy" else 1


def _missed(estimate: Estimate, targets: Targets) -> set[str]:
    return {
        name
        for name, asked in _asked(targets).items()
        if (_value(estimate, name) - asked) * _sign(name) > 0
    }


def _because(estimates: Sequence[Estimate], targets: Targets, tiers: tuple[str, ...]) -> str:
    """The target that no placement meets even by itself; else that they exclude one another."""
    for name, asked in _asked(targets).items():
        if all(name in _missed(estimate, targets) for estimate in estimates):
            best = min(estimates, key=lambda e: _value(e, name) * _sign(name))
            return (
                f"no placement reaches {name} {asked:.4g}: the best is {_value(best, name):.4g} "
                f"({best.placement.describe(tiers)})"
            )
    return "each target can be met, but not all of them by one placement"
