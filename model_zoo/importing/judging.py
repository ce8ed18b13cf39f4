"""What labelled data say of an imported model: temperature, threshold, accuracy, calibration.

One half of the examples, drawn at random, serves for the choices, the other for the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_zoo import calibrate
from model_zoo.class_labels import as_indices
from model_zoo.importing.options import ImportOptions
from model_zoo.labelled import Labelled, inputs_for
from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.adapters.engines import load_members
from runtime.delta.scan import scan
from runtime.errors import ArtifactError, PolicyError
from runtime.manifest import Measured
from runtime.messages import Tier

MIN_EXAMPLES = 20
BATCH = 128
DEFAULT_ACCEPT_AT = 0.9
SEED = 0
Float64s = npt.NDArray[np.float64]
ALONE = (
    " Here with one threshold, and in place of the tiers above one that is always right: errors "
    "that stay at this tier are at most 0.5 % of all examples."
)
ABOVE = " Here with one threshold, and the tier above in place of the cloud."
TYPED = "Typed in, or the default without data."


@dataclass(frozen=True, slots=True)
class Judged:
    """What the manifest says of it."""

    temperature: float
    accept_at: float
    measured: Measured | None
    threshold_rule: str
    notes: tuple[str, ...]


def judge(options: ImportOptions, draft: ModelFolder) -> Judged:
    """Temperature and threshold of a model folder that has neither.

    Raises:
        ArtifactError: the folder of the tier above cannot be used.
        PolicyError: there are too few examples, of too few classes, or they do not fit.
    """
    is_top = options.tier is Tier.CLOUD
    if options.data is None:
        accept_at = options.accept_at
        if accept_at is None:
            accept_at = 0.0 if is_top else DEFAULT_ACCEPT_AT
        note = f"without --data nothing is calibrated or measured; the threshold is {accept_at:g}"
        return Judged(1.0, accept_at, None, TYPED, (note,))
    manifest = draft.manifest
    labels = as_indices(options.data.labels, manifest.labels, options.data.source)
    _check_labels(labels, options.data)
    logits = _logits(draft, options.data)
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise PolicyError(
            f"the model answers {bad} of {len(labels)} examples with scores that are none; are "
            "they probabilities? See --scores, --normalise and --scale"
        )
    order = np.random.default_rng(SEED).permutation(len(labels))
    chosen, held = order[: len(order) // 2], order[len(order) // 2 :]
    temperature = calibrate.fit_temperature([logits[chosen]], labels[chosen])
    shares = calibrate.probabilities_of([logits], temperature)
    accept_at, rule = _threshold(options, manifest.labels, shares[chosen], labels[chosen], chosen)
    confidence, correct = calibrate.scores_of(shares[held], labels[held])
    stands = confidence >= accept_at
    measured = Measured(
        accuracy=float(correct.mean()),
        num_examples=len(held),
        ece_before=calibrate.calibration_error(
            calibrate.probabilities_of([logits[held]]), labels[held]
        ),
        ece_after=calibrate.calibration_error(shares[held], labels[held]),
        parameters=num_parameters(draft),
        size_bytes=manifest.size_bytes,
        answered_share=float(stands.mean()),
        answered_accuracy=float(correct[stands].mean()) if stands.any() else None,
    )
    return Judged(temperature, accept_at, measured, rule, tuple(_notes(measured, labels)))


def _check_labels(labels: npt.NDArray[np.int64], data: Labelled) -> None:
    if len(labels) < MIN_EXAMPLES:
        raise PolicyError(
            f"{data.source}: {len(labels)} examples are too few to calibrate on and to measure "
            f"with; give at least {MIN_EXAMPLES} (hundreds are better), or leave --data out"
        )
    if len(np.unique(labels)) < 2:  # noqa: PLR2004 - a choice needs two
        raise PolicyError(
            f"{data.source}: all {len(labels)} examples are of one class; nothing can be measured "
            "on them. Is the file sorted, and --part too small?"
        )


def _notes(measured: Measured, labels: npt.NDArray[np.int64]) -> list[str]:
    found = []
    if len(labels) < 500:  # noqa: PLR2004 - an error of about 2 points
        found.append(
            f"{len(labels)} examples are few: the accuracy is known to about "
            f"+-{100 / np.sqrt(measured.num_examples):.0f} points"
        )
    return found


def _logits(folder: ModelFolder, data: Labelled) -> Float64s:
    """(n, classes) of all examples, as the tier would get them."""
    manifest = folder.manifest
    inputs = inputs_for(data.inputs, manifest.inputs, data.source)
    (backend,) = load_members(folder)
    output = manifest.outputs[0].name
    try:
        parts = [
            backend.run({name: one[start : start + BATCH] for name, one in inputs.items()})[output]
            for start in range(0, len(data.labels), BATCH)
        ]
    finally:
        backend.close()
    return np.concatenate(parts).astype(np.float64)


def _threshold(
    options: ImportOptions,
    names: tuple[str, ...],
    shares: Float64s,
    labels: npt.NDArray[np.int64],
    chosen: npt.NDArray[np.int64],
) -> tuple[float, str]:
    """By the rule of the bundled models, with what there is of tiers above."""
    if options.accept_at is not None:
        return options.accept_at, TYPED
    if options.tier is Tier.CLOUD:
        return 0.0, ""
    own = calibrate.scores_of(shares, labels)
    if options.above is None or options.data is None:
        count = len(labels)
        top = calibrate.TierScores(np.ones(count), np.ones(count, np.bool_))
        rule = ALONE
    else:
        above = open_model(options.above)
        if above.manifest.labels != names or len(above.manifest.members) != 1:
            raise ArtifactError(
                f"--above {options.above} has other classes, or several members: leave it out; a "
                "fitted policy needs no threshold"
            )
        logits = _logits(above, options.data)[chosen]
        probabilities = calibrate.probabilities_of([logits], above.manifest.temperature)
        top = calibrate.scores_of(probabilities, labels)
        rule = ABOVE
    result = calibrate.choose_thresholds(calibrate.CascadeScores(own, top, top), regional_at=(0.0,))
    return result.edge_accept_at, calibrate.THRESHOLD_RULE + rule


def num_parameters(folder: ModelFolder) -> int:
    """Numbers that the files store in tensors, at least 1."""
    ranges = [one for name in folder.manifest.files for one in scan(folder.read_verified(name))]
    return max(1, sum(one.length // one.kind.width for one in ranges))
