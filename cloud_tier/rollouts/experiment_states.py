"""An A/B test over devices: who has which version, what was observed, and what follows from it.

Rules of this file:
  * a whole device is in one arm, by the hash of its name, or, with ``split_by``, every device has
    both and divides its requests by a key of their callers;
  * requests are not independent of one another, so a device is one observation, and not its
    requests: its share of each metric, or the difference of its two shares;
  * an observation is what was counted in the first ``observe_s`` seconds in the arm; it is made
    once and never changes, so that intervals that hold at all times hold here;
  * devices that have failed on the way are no observation, and missing ones show: where arms do not
    have the shares of devices that they were meant to have, nothing else is said.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec

from cloud_tier.rollouts.figures import DISAGREEMENT, METRICS
from cloud_tier.rollouts.register import Sums
from cloud_tier.rollouts.requests import Who, Words
from runtime.common_settings import Name
from runtime.core.confidence_sequence import Moments
from runtime.core.experiment import Answer, Arm, Experiment, Goal, noted
from runtime.errors import RequestError

# Metric, the part of it and the whole; a smaller share is better in all of them.
_PARTS = {
    **{name: (part, "requests") for name, part in METRICS},
    DISAGREEMENT: ("audited_wrong", "audited"),
}
CONTROL = "control"
MAX_ARMS = 8


class ArmRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that is tried; ``weight`` is its share of devices beside those of the others."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0


class ExperimentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment to be started; ``control`` is the version that the devices have.

    ``guardrails`` are metrics with how much worse each may be, as a share of requests. With
    ``min_devices`` observations in each arm something is said at the earliest. ``split_by`` is the
    context key whose value says the arm of a request; empty: whole devices are in an arm.
    """

    model: Name
    control: ArmRequest
    arms: Annotated[tuple[ArmRequest, ...], msgspec.Meta(min_length=1, max_length=MAX_ARMS)]
    by: Who
    why: Words
    id: Name | None = None
    primary: str = "escalations"
    guardrails: dict[str, float] = msgspec.field(default_factory=lambda: {"errors": 0.01})
    observe_s: Annotated[float, msgspec.Meta(ge=1, le=7 * 86_400)] = 86_400.0
    min_devices: Annotated[int, msgspec.Meta(ge=2)] = 30
    alpha: float = 0.05
    least_difference: float = 0.005
    split_by: Annotated[str, msgspec.Meta(max_length=64)] = ""


class PromoteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who promotes, and which arm; empty: the one that wins."""

    by: Who
    why: Words
    arm: str = ""


class ArmState(msgspec.Struct, frozen=True):
    """A version, all its manifests, and the rollout that brings it; the control has none."""

    version: int
    path: str
    digests: tuple[str, ...]
    rollout: str = ""


class ExperimentState(msgspec.Struct, frozen=True, omit_defaults=True):
    """An experiment as it is stored. ``devices`` have one arm each, from the start on.

    ``observed`` are the values of devices whose time is over; with ``split_by`` those of their
    control, and ``beside`` those of the other arm in the same time. ``ended`` says why nothing is
    observed any more, ``draft`` is the rollout that it was promoted to.
    """

    spec: Experiment
    model: str
    arms: dict[str, ArmState]
    devices: dict[str, str]
    observe_s: float
    started_s: float
    by: str
    why: str
    observed: dict[str, dict[str, float]] = {}
    answer: Answer | None = None
    ended: str = ""
    draft: str = ""
    revision: int = 0
    split_by: str = ""
    beside: dict[str, dict[str, float]] = {}

    @property
    def id(self) -> str:
        """Its name."""
        return self.spec.id


def spec_of(request: ExperimentRequest, experiment_id: str) -> Experiment:
    """The question, as the core asks it; arms are called by their versions.

    Raises:
        RequestError: a metric is unknown, or a number is out of its range.
    """
    for name in (request.primary, *request.guardrails):
        if name not in _PARTS:
            raise RequestError(f"no metric {name[:40]!r}: there are {', '.join(_PARTS)}")
    if request.split_by and len(request.arms) > 1:
        raise RequestError("split_by takes one arm beside the control: a device has two models")
    try:
        return Experiment(
            experiment_id,
            (
                Arm(CONTROL, request.control.weight),
                *(Arm(arm_name(one.version), one.weight) for one in request.arms),
            ),
            Goal(request.primary, larger_is_better=False),
            tuple(
                Goal(name, larger_is_better=False, allowed=allowed)
                for name, allowed in request.guardrails.items()
            ),
            alpha=request.alpha,
            least_difference=request.least_difference,
            min_num=request.min_devices,
            max_num=10_000_000,
        )
    except ValueError as error:
        raise RequestError(f"the experiment cannot be made: {error}") from error


def arm_name(version: int) -> str:
    """What an arm that is tried is called."""
    return f"v{version}"


def values_of(spec: Experiment, sums: Sums) -> dict[str, float] | None:
    """A device's observation: its share of each metric; None while one cannot be known."""
    values: dict[str, float] = {}
    for goal in (spec.primary, *spec.guardrails):
        part, whole = _PARTS[goal.name]
        if not getattr(sums, whole):
            return None
        values[goal.name] = getattr(sums, part) / getattr(sums, whole)
    return values


def moments_of(state: ExperimentState) -> dict[str, dict[str, Moments]]:
    """What is kept of each arm and metric."""
    kept: dict[str, dict[str, Moments]] = {}
    for device, values in sorted(state.observed.items()):
        kept = noted(kept, CONTROL if state.split_by else state.devices[device], values)
    for device, values in sorted(state.beside.items()):
        kept = noted(kept, state.devices[device], values)
    return kept


def pairs_of(state: ExperimentState) -> dict[str, Moments] | None:
    """By metric, the new arm's share less the control's of each device; None for whole devices."""
    if not state.split_by:
        return None
    found: dict[str, Moments] = {}
    for device, values in sorted(state.beside.items()):
        for name, value in values.items():
            apart = value - state.observed[device][name]
            found[name] = found.get(name, Moments()).plus(apart)
    return found


def sizes_of(state: ExperimentState) -> dict[str, int]:
    """Devices of each arm whose observation was made."""
    if state.split_by:
        num = len(state.beside)
        return {arm.name: num for arm in state.spec.arms}
    return dict(Counter(state.devices[device] for device in state.observed))
