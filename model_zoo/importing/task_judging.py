"""What data say of a model that is no classifier: what its task leaves open, and how good it is.

One half of the examples, drawn at random, serves for the choices, the other for the figures. The
confidence that a request climbs by is compared with whether an example is right as a whole, and its
threshold follows the rule of the bundled models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from model_zoo import calibrate
from model_zoo.class_labels import as_indices
from model_zoo.importing.average_precision import is_right, mean_average_precision
from model_zoo.importing.judging import (
    ALONE,
    DEFAULT_ACCEPT_AT,
    MIN_EXAMPLES,
    SEED,
    TYPED,
    Judged,
    num_parameters,
)
from model_zoo.importing.options import ImportOptions
from model_zoo.importing.task_choices import (
    area_under_roc,
    class_means,
    fit_logistic,
    label_thresholds,
    micro_f1,
)
from model_zoo.importing.task_options import Targets
from model_zoo.labelled import inputs_for
from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.engines import load_members
from runtime.core.candidates import Candidates
from runtime.core.confidence import Floats
from runtime.core.multilabel import chances
from runtime.errors import PolicyError
from runtime.manifest import Measured, ModelManifest
from runtime.messages import Tensors, Tier
from runtime.task_answers import TaskRule
from runtime.task_fields import AnomalyFields, DetectionFields
from runtime.task_rules import rule_of

# Boxes of so little score still count for the precision at high recall.
LEAST_SCORE = 0.05
_IN_PIXELS = 2.0
Ints = npt.NDArray[np.int64]


@dataclass
class TaskJudged:
    """The manifest as it is to be, prototypes where the task has some, and what was measured."""

    manifest: ModelManifest
    judged: Judged
    prototypes: Floats | None = None
    notes: list[str] = field(default_factory=list)


def judge_task(
    options: ImportOptions,
    draft: ModelFolder,
    prototypes: Floats | None,
    picture: tuple[float, float] | None,
) -> TaskJudged:
    """Measures a model folder; ``picture`` is the width and height that a detector's file takes.

    Raises:
        PolicyError: there are too few examples, or they do not fit.
    """
    found = TaskJudged(draft.manifest, _typed(options), prototypes)
    if options.data is None or options.targets is None:
        if draft.manifest.task == "detection" and options.told.box_size is None:
            size = "" if picture is None else f" (the file takes {picture[0]:g}x{picture[1]:g})"
            found.notes.append(
                f"boxes are told in the file's own unit: where that is pixels{size}, say --box-size"
            )
        return found
    num = len(options.data.labels)
    if num < MIN_EXAMPLES:
        raise PolicyError(
            f"{options.data.source}: {num} examples are too few to measure with; give at least "
            f"{MIN_EXAMPLES} (hundreds are better), or leave --data out"
        )
    outputs = _outputs(options, draft)
    order = np.random.default_rng(SEED).permutation(num)
    chosen, held = order[: num // 2], order[num // 2 :]
    judge = _JUDGES[draft.manifest.task]
    figures, correct = judge(_Case(options, found, outputs, options.targets, chosen, held, picture))
    rule = rule_of(found.manifest, found.prototypes)
    confidence = np.array([_confidence(rule, one) for one in outputs])
    accept_at, words = _threshold(options, confidence[chosen], correct[chosen])
    stands = confidence[held] >= accept_at
    error = calibrate.chance_error(confidence[held], correct[held])
    measured = Measured(
        accuracy=float(correct[held].mean()),
        num_examples=len(held),
        ece_before=error,
        ece_after=error,
        parameters=num_parameters(draft),
        size_bytes=draft.manifest.size_bytes,
        answered_share=float(stands.mean()),
        answered_accuracy=float(correct[held][stands].mean()) if stands.any() else None,
        figures={name: round(value, 6) for name, value in figures.items()},
    )
    found.judged = Judged(1.0, accept_at, measured, words, ())
    return found


def _typed(options: ImportOptions) -> Judged:
    accept_at = options.accept_at
    if accept_at is None:
        accept_at = 0.0 if options.tier is Tier.CLOUD else DEFAULT_ACCEPT_AT
    note = f"without --data nothing is measured; the threshold is {accept_at:g}"
    return Judged(1.0, accept_at, None, TYPED, (note,))


def _confidence(rule: TaskRule, outputs: Tensors) -> float:
    confidence = rule.judge(outputs).confidence
    return confidence.probability if confidence.is_valid else 0.0


def _threshold(
    options: ImportOptions, confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]
) -> tuple[float, str]:
    if options.accept_at is not None:
        return options.accept_at, TYPED
    if options.tier is Tier.CLOUD:
        return 0.0, ""
    num = len(correct)
    own = calibrate.TierScores(confidence, correct)
    top = calibrate.TierScores(np.ones(num), np.ones(num, np.bool_))
    found = calibrate.choose_thresholds(calibrate.CascadeScores(own, top, top), regional_at=(0.0,))
    return found.edge_accept_at, calibrate.THRESHOLD_RULE + ALONE


def _outputs(options: ImportOptions, draft: ModelFolder) -> list[Tensors]:
    """Of each example alone, as a request has it: boxes are as many as there are."""
    data, manifest = options.data, draft.manifest
    if data is None:
        return []
    inputs = inputs_for(data.inputs, manifest.inputs, data.source)
    (backend,) = load_members(draft)
    try:
        return [
            backend.run({name: one[row : row + 1] for name, one in inputs.items()})
            for row in range(len(data.labels))
        ]
    finally:
        backend.close()


def _rows(outputs: Sequence[Tensors], manifest: ModelManifest) -> npt.NDArray[np.float64]:
    name = manifest.outputs[0].name
    rows = np.concatenate([one[name] for one in outputs]).astype(np.float64)
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows).all(axis=1)).sum())
        raise PolicyError(f"the model answers {bad} of {len(rows)} examples with no numbers")
    return rows


@dataclass(frozen=True, slots=True)
class _Case:
    """What a task is judged by: outputs of each example, and which of them serve for what."""

    options: ImportOptions
    found: TaskJudged
    outputs: Sequence[Tensors]
    targets: Targets
    chosen: Ints
    held: Ints
    picture: tuple[float, float] | None


Figures = tuple[dict[str, float], npt.NDArray[np.bool_]]


def _detection(case: _Case) -> Figures:
    options, found = case.options, case.found
    fields = found.manifest.detection or DetectionFields()
    if options.told.box_size is None and case.picture is not None:
        largest = max(
            (float(np.abs(one["boxes"]).max(initial=0)) for one in case.outputs), default=0
        )
        if largest > _IN_PIXELS:
            size = (float(case.picture[0]), float(case.picture[1]))
            fields = msgspec.structs.replace(fields, box_size=size)
            found.notes.append(
                f"boxes go up to {largest:.0f}: they are taken for pixels of the {size[0]:.0f} x "
                f"{size[1]:.0f} that the file takes, and told as shares; --box-size says otherwise"
            )
            found.manifest = msgspec.structs.replace(found.manifest, detection=fields)
    truths = _as_shares(options, case.targets.boxes, len(found.manifest.labels))
    weak = msgspec.structs.replace(fields, accept=min(LEAST_SCORE, fields.accept))
    every = rule_of(msgspec.structs.replace(found.manifest, detection=weak))
    labels = {name: place for place, name in enumerate(found.manifest.labels)}
    boxes = [_told(every.judge(one).told, labels) for one in case.outputs]
    standing = [_told(rule_of(found.manifest).judge(one).told, labels) for one in case.outputs]
    correct = np.array([is_right(one, truth) for one, truth in zip(standing, truths, strict=True)])
    precision = mean_average_precision(
        [boxes[row] for row in case.held], [truths[row] for row in case.held]
    )
    return {"mAP@0.5": precision}, correct


def _told(told: str, labels: Mapping[str, int]) -> Candidates:
    boxes = json.loads(told)["boxes"] if told else []
    return Candidates(
        np.array([one["box"] for one in boxes], np.float64).reshape(-1, 4),
        np.array([one["score"] for one in boxes], np.float64),
        np.array([labels[one["label"]] for one in boxes], np.int64),
    )


def _as_shares(
    options: ImportOptions, truths: Sequence[Candidates], num_labels: int
) -> list[Candidates]:
    """Boxes of the data in 0..1 of the picture, where they are in pixels of it."""
    data = options.data
    highest = max((int(one.labels.max(initial=-1)) for one in truths), default=-1)
    if highest >= num_labels:
        raise PolicyError(
            f"`box_labels` go up to {highest}, and there are {num_labels} labels: correct --labels"
        )
    largest = max((float(one.corners.max(initial=0)) for one in truths), default=0.0)
    shape = next(iter(data.inputs.values())).shape[1:] if data is not None else ()
    if largest <= _IN_PIXELS or len(shape) not in (2, 3) or options.told.box_size == (1.0, 1.0):
        return list(truths)
    is_first = len(shape) > 2 and shape[0] in (1, 3, 4)  # noqa: PLR2004 - channels as well
    height, width = shape[1:] if is_first else shape[:2]
    sides = np.array([width, height, width, height], np.float64)
    return [Candidates(one.corners / sides, one.scores, one.labels) for one in truths]


def _anomaly(case: _Case) -> Figures:
    options, found = case.options, case.found
    odd = _held(case.targets.holds)[:, 0] == 1
    scores = _rows(case.outputs, found.manifest)[:, 0]
    for part in (case.chosen, case.held):
        if odd[part].all() or not odd[part].any():
            raise PolicyError(
                "there must be ordinary (0) and anomalous (1) examples in both halves of the data; "
                "give more of the rarer kind"
            )
    fields = found.manifest.anomaly
    if options.told.threshold is None or options.told.scale is None or fields is None:
        threshold, scale = fit_logistic(scores[case.chosen], odd[case.chosen])
        fields = AnomalyFields(threshold, scale)
        found.manifest = msgspec.structs.replace(found.manifest, anomaly=fields)
        found.notes.append(
            f"anomalous from {threshold:.4g} on, scale {scale:.3g}: a logistic fit (Platt, 1999)"
        )
    correct = (scores >= fields.threshold) == odd
    return {"AUROC": area_under_roc(scores[case.held], odd[case.held])}, correct


def _embedding(case: _Case) -> Figures:
    options, found = case.options, case.found
    source = "" if options.data is None else options.data.source
    labels = as_indices(_held(case.targets.classes), found.manifest.labels, source)
    vectors = _rows(case.outputs, found.manifest)
    if options.told.prototypes is None:
        found.prototypes = class_means(
            vectors[case.chosen], labels[case.chosen], found.manifest.labels
        )
        found.notes.append(
            f"prototypes are the means of {len(case.chosen)} vectors of length 1, by their labels"
        )
    if found.prototypes is None:
        raise RuntimeError("a draft without prototypes")
    known = np.asarray(found.prototypes, np.float64)
    known = known / np.linalg.norm(known, axis=1)[:, None]
    correct = (vectors @ known.T).argmax(axis=1) == labels
    return {"top-1": float(correct[case.held].mean())}, correct


def _multilabel(case: _Case) -> Figures:
    found = case.found
    holds = _held(case.targets.holds) == 1
    if holds.shape[1] != len(found.manifest.labels):
        raise PolicyError(
            f"the data say of {holds.shape[1]} labels whether they hold, and the model has "
            f"{len(found.manifest.labels)}: correct --labels"
        )
    shares = chances(_rows(case.outputs, found.manifest))
    limits = label_thresholds(shares[case.chosen], holds[case.chosen])
    found.manifest = msgspec.structs.replace(found.manifest, label_thresholds=limits)
    said = shares >= np.array(limits)
    return {"micro-F1": micro_f1(said[case.held], holds[case.held])}, (said == holds).all(axis=1)


def _regression(case: _Case) -> Figures:
    found = case.found
    truth = _held(case.targets.numbers).astype(np.float64)
    low, value, high = _rows(case.outputs, found.manifest).T
    inside = (truth >= low) & (truth <= high)
    figures = {
        "coverage": float(inside[case.held].mean()),
        "mean absolute error": float(np.abs(value - truth)[case.held].mean()),
    }
    return figures, np.abs(value - truth) <= found.manifest.tolerance


def _held(array: npt.NDArray[np.generic] | None) -> Floats:
    if array is None:
        raise RuntimeError("targets of another task")
    return array


_JUDGES: dict[str, Callable[[_Case], Figures]] = {
    "detection": _detection,
    "anomaly": _anomaly,
    "embedding": _embedding,
    "multilabel": _multilabel,
    "regression": _regression,
}
