"""Refuses what would make a guarantee void: a calibration set seen before, a policy for others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_zoo.policies.averaging import can_average
from model_zoo.policies.predictions import Predictions
from runtime.adapters.policy_file import read_policy
from runtime.errors import PolicyError
from runtime.policy import Policy, Targets


def check_unused(
    calibration: Predictions, train: Predictions, targets: Targets, earlier: Sequence[Path]
) -> None:
    """Refuses a calibration set that an earlier policy was certified on.

    The same fit may be repeated: it comes to the same policy, so nothing is chosen by it. A file
    that is not there has used nothing.

    Raises:
        PolicyError: names the earlier policy and what to do.
    """
    for path in earlier:
        policy = read_policy(path).policy if path.exists() else None
        if policy is None or policy.calibration.digest != calibration.digest:
            continue
        is_repeated = (
            policy.train.digest == train.digest
            and policy.targets == targets
            and policy.models == calibration.models
            and policy.with_averages == can_average(train, calibration)
        )
        if not is_repeated:
            raise PolicyError(
                f"{calibration.source} has certified {path} already, with other targets, models, "
                "training examples or averages; choosing on it twice voids the guarantee: label "
                "new examples, or repeat the fit as it was"
            )


def check_fits(policy: Policy, predictions: Predictions) -> None:
    """Refuses predictions that a policy says nothing about.

    Raises:
        PolicyError: of other tiers, classes or models, or the ones it was certified on.
    """
    if policy.tiers != predictions.tiers or policy.labels != predictions.label_names:
        raise PolicyError(
            f"{policy.name} is for {' > '.join(policy.tiers)} and {len(policy.labels)} classes, "
            f"{predictions.source} has {' > '.join(predictions.tiers)} and "
            f"{len(predictions.label_names)}"
        )
    changed = [
        tier
        for tier, digest in policy.models.items()
        if predictions.models.get(tier, digest) != digest
    ]
    if changed:
        raise PolicyError(
            f"{predictions.source} was predicted by other models than {policy.name} was fitted on "
            f"({', '.join(changed)}); collect and fit again"
        )
