"""The policy of the bundled task, certified on test pictures that are not shipped.

Learned on the calibration pictures, which temperatures and thresholds were chosen on as well;
certified on the second half of the test pictures. The first half is what the demo asks about.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model_zoo.idx import Split, to_pixels
from model_zoo.policies.collect import Examples, collect
from model_zoo.policies.fit import MIN_CALIBRATION, MIN_TRAIN, Conditions, Splits, fit_policy
from runtime.adapters.artifacts import write_artifact
from runtime.messages import USUAL_TIERS
from runtime.policy import Policy, Targets, encode_policy

POLICY_FILE = "policy.json"
TARGETS = Targets(max_loss=0.01, delta=0.1)
# What a call costs beside one of the ensemble; what runs on the device is there anyway.
PRICES = {"edge": 0.0, "regional": 0.3, "cloud": 1.0}


def write_bundled_policy(
    output: Path,
    calibration: Split,
    test: Split,
    *,
    name: str,
    seed: int,
    progress: Callable[[str], None],
) -> Policy | None:
    """Fits and writes the policy of the models in ``output``; None when there is too little data.

    Raises:
        PolicyError: the models' answers cannot be used.
        ArtifactError: the file could not be written.
    """
    held = Split(test.pictures[len(test.labels) // 2 :], test.labels[len(test.labels) // 2 :])
    if len(calibration.labels) < MIN_TRAIN or len(held.labels) < MIN_CALIBRATION:
        progress("policy: too few pictures to fit one")
        return None
    folders = {tier.value: output / tier for tier in USUAL_TIERS}
    predictions = {}
    for what, split in (("calibration", calibration), ("test, second half", held)):
        progress(f"policy: predict {what}")
        examples = Examples(
            {"image": to_pixels(split.pictures)}, split.labels, f"{name} pictures: {what}"
        )
        predictions[what] = collect(folders, examples, PRICES)
    # Averages win next to nothing here: each tier knows all that the one below does.
    train, certified_on = (one.without_beliefs() for one in predictions.values())
    policy = fit_policy(
        Splits(train, certified_on),
        TARGETS,
        Conditions(),
        name=name,
        seed=seed,
        progress=lambda step: progress(f"policy: {step}"),
    )
    write_artifact(output / POLICY_FILE, encode_policy(policy))
    return policy
