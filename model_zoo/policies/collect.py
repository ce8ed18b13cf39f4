"""Runs every tier's model on labelled examples and keeps what a policy is fitted on.

The numbers are those that a tier itself would see: members combined as at run time, confidence by
the manifest's temperature, and above a model that forwards an output, that output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from model_zoo.catalog import bundled_pictures
from model_zoo.class_labels import as_indices
from model_zoo.idx import to_pixels
from model_zoo.labelled import find_labelled, inputs_for, read_arrays
from model_zoo.policies.predictions import Floats, Predictions, check
from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.adapters.engines import load_members
from runtime.core.beliefs import Belief, believed
from runtime.core.confidence import Confidence, confidence_of_batch, softmax
from runtime.core.ensemble import MemberVote, combine
from runtime.errors import BackendError, InvalidTensorError, PolicyError
from runtime.manifest import ModelManifest, model_digest
from runtime.policy import Score
from runtime.ports import Backend
from runtime.tensors import check_fit

BATCH = 100
BUNDLED_PREFIX = "bundled:"
Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled inputs by tensor name, first axis the examples; ``ids`` tell them apart."""

    inputs: Arrays
    labels: npt.NDArray[np.generic]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> npt.NDArray[np.bytes_]:
        """(n,) digests of the inputs' bytes."""
        names = sorted(self.inputs)
        found = []
        for row in range(len(self.labels)):
            digest = hashlib.sha256()
            for name in names:
                digest.update(np.ascontiguousarray(self.inputs[name][row]).tobytes())
            found.append(digest.hexdigest()[:32])
        return np.asarray(found, np.bytes_)

    def part(self, start: int, end: int | None) -> Examples:
        """Examples ``start`` to ``end``, the latter not included."""
        inputs = {name: array[start:end] for name, array in self.inputs.items()}
        return Examples(inputs, self.labels[start:end], self.source, self.notes)

    def fitted(self, manifest: ModelManifest) -> Examples:
        """The same by the names, types and classes of a model.

        Raises:
            PolicyError: they are of another model.
        """
        if manifest.task != "classification":
            raise PolicyError(f"{manifest.name} is a model of {manifest.task}, not classification")
        inputs = inputs_for(self.inputs, manifest.inputs, self.source)
        one = {name: array[:1] for name, array in inputs.items()}
        try:
            check_fit(one, manifest.inputs)
        except InvalidTensorError as error:
            raise PolicyError(f"{self.source} does not fit {manifest.name}: {error}") from error
        labels = as_indices(self.labels, manifest.labels, self.source)
        return Examples(inputs, labels, self.source, self.notes)


def read_examples(source: str) -> Examples:
    """Labelled examples of a ``.npz`` with ``labels`` and the model's inputs by name.

    ``bundled:calibration`` and ``bundled:test`` are the pictures that come with the package.

    Raises:
        PolicyError: the file is unreadable or has no labels.
    """
    if source.startswith(BUNDLED_PREFIX):
        part = source.removeprefix(BUNDLED_PREFIX)
        if part not in ("calibration", "test"):
            raise PolicyError(f"{source} is not there: bundled:calibration and bundled:test are")
        pictures = bundled_pictures("calibration" if part == "calibration" else "test")
        return Examples({"image": to_pixels(pictures.pictures)}, pictures.labels, source)
    path = Path(source)
    found = find_labelled(read_arrays(path), path.name)
    if found.is_multilabel:
        raise PolicyError(f"{source}: several labels hold of one example; a policy needs one each")
    return Examples(found.inputs, found.labels, path.name, found.notes)


Progress = Callable[[str, int, int], None]


def collect(
    folders: Mapping[str, Path],
    examples: Examples,
    prices: Mapping[str, float],
    *,
    progress: Progress = lambda _tier, _done, _all: None,
) -> Predictions:
    """Predictions of the models in ``folders`` (by tier, lowest first) on all examples.

    Raises:
        PolicyError: models of other classes, a price is missing, the examples do not fit, or a
            model was made for the output of another one than the one below it.
        ArtifactError: a model cannot be used.
    """
    missing = [tier for tier in folders if tier not in prices]
    if missing:
        raise PolicyError(f"no price for {', '.join(missing)}: add --price {missing[0]}=...")
    if not len(examples.labels):
        raise PolicyError(f"{examples.source} is empty")
    models = {tier: open_model(folder) for tier, folder in folders.items()}
    labels = _one_set_of_labels(models)
    answers, beliefs, service = [], [], []
    climbing, climbs_from = examples, ""
    for tier, model in models.items():
        _check_pair(tier, model.manifest, climbs_from)
        fitted = climbing.fitted(model.manifest)
        backends = load_members(model)
        of_tier = _answers(tier, model.manifest, backends, fitted, progress)
        answers.append(of_tier.confidences)
        beliefs.append(of_tier.beliefs)
        service.append(max(backend.typical_ms for backend in backends))
        if of_tier.forwarded is not None:
            source = f"{model.manifest.forwards} of {tier}"
            climbing = Examples({model.manifest.forwards: of_tier.forwarded}, fitted.labels, source)
            climbs_from = model_digest(model.manifest)
    scores: dict[Score, Floats] = {
        kind: np.asarray([[one.score(kind) for one in of_tier] for of_tier in answers])
        for kind in get_args(Score)
    }
    predictions = Predictions(
        tiers=tuple(folders),
        label_names=labels,
        label=as_indices(examples.labels, labels, examples.source),
        price=np.asarray([prices[tier] for tier in folders]),
        predicted=np.asarray([[one.label for one in of_tier] for of_tier in answers], np.int64),
        score=scores["probability"],
        scores=scores,
        beliefs=_stacked(beliefs),
        example_id=examples.ids,
        service_ms=np.repeat(np.asarray(service)[:, None], len(examples.labels), axis=1),
        models={tier: model_digest(model.manifest) for tier, model in models.items()},
        source=examples.source,
    )
    check(predictions)
    return predictions


def accuracy_of(
    folder: Path, examples: Examples, progress: Progress = lambda _tier, _done, _all: None
) -> float:
    """The share of examples that the model of a folder answers rightly, members combined.

    Raises:
        PolicyError: there are no examples, or they do not fit the model.
        ArtifactError: the model cannot be used.
    """
    if not len(examples.labels):
        raise PolicyError(f"{examples.source} is empty")
    model = open_model(folder)
    fitted = examples.fitted(model.manifest)
    tier = model.manifest.tier.value
    answers = _answers(tier, model.manifest, load_members(model), fitted, progress).confidences
    return float(np.mean(np.asarray([one.label for one in answers]) == fitted.labels))


def _check_pair(tier: str, manifest: ModelManifest, climbs_from: str) -> None:
    accepts = manifest.accepts_from
    if accepts and climbs_from not in accepts:
        below = f"that of {climbs_from[:12]} climbs" if climbs_from else "inputs climb as they are"
        raise PolicyError(
            f"the model of {tier} takes the output of the model {accepts[0][:12]}, and {below}: "
            "give both halves of one split, the lower one first"
        )


def _one_set_of_labels(models: Mapping[str, ModelFolder]) -> tuple[str, ...]:
    first, *others = models.items()
    for tier, model in others:
        if model.manifest.labels != first[1].manifest.labels:
            raise PolicyError(f"{tier} has other classes than {first[0]}; a policy needs one task")
    return first[1].manifest.labels


@dataclass(frozen=True, slots=True)
class _Answered:
    """Of all examples; ``forwarded`` is what climbs in their place, where that is an output."""

    confidences: list[Confidence]
    beliefs: Belief | None
    forwarded: npt.NDArray[np.generic] | None


def _answers(
    tier: str,
    manifest: ModelManifest,
    backends: Sequence[Backend],
    examples: Examples,
    progress: Progress,
) -> _Answered:
    """What the tier itself would make of every example, and what it would tell others of it."""
    total = len(examples.labels)
    output = manifest.outputs[0].name
    found, shares, forwarded = [], [], []
    for start in range(0, total, BATCH):
        batch = examples.part(start, start + BATCH)
        outputs = [backend.run(dict(batch.inputs)) for backend in backends]
        logits = [one[output] for one in outputs]
        if manifest.forwards:
            forwarded.append(outputs[0][manifest.forwards])
        for row in range(len(batch.labels)):
            combined, agreement = _combined(manifest, [one[row : row + 1] for one in logits])
            found.append(confidence_of_batch(combined, manifest.temperature, agreement=agreement))
            shares.append(softmax(combined[0], manifest.temperature))
        progress(tier, min(start + BATCH, total), total)
    invalid = sum(not one.is_valid for one in found)
    if invalid:
        raise PolicyError(
            f"{tier} answers {invalid} examples of {examples.source} with numbers that are not "
            "finite; look at its model first"
        )
    climbs = np.concatenate(forwarded) if forwarded else None
    return _Answered(found, believed(np.stack(shares)), climbs)


def _stacked(beliefs: Sequence[Belief | None]) -> Belief | None:
    """(k, n, c) of all tiers; None where there are too many classes to tell."""
    known = [belief for belief in beliefs if belief is not None]
    return np.stack(known) if len(known) == len(beliefs) else None


def _combined(
    manifest: ModelManifest, logits: Sequence[npt.NDArray[np.generic]]
) -> tuple[npt.NDArray[np.generic], float]:
    """The tier's logits of one example, and the share of members that agree."""
    if len(logits) == 1:
        return logits[0], 1.0
    votes = [
        MemberVote(member.name, softmax(one), member.weight)
        for member, one in zip(manifest.members, logits, strict=True)
    ]
    combined = combine(votes)
    if combined is None or combined.left_out:
        raise BackendError(f"a member of {manifest.name} gave no usable answer")
    return combined.logits, combined.agreement
