"""Cached predictions of every tier on the same labelled examples: what policies are fitted on.

Rules of this file:
  * one ``.npz`` without pickles; ``label`` (n), ``service`` (k), ``price`` (k), ``predicted`` and
    ``confidence`` (k, n) are needed, all else is optional, so that published predictions of other
    people's services can be used as they are;
  * whatever is handed on has been checked: a wrong file is refused with what to do about it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.errors import PolicyError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
NEEDED = ("label", "service", "price", "predicted", "confidence")
DEFAULT_TIERS = ("edge", "regional", "cloud")
MAX_TIERS = 6
MIN_TIERS = 2
REMEDY = "make it with `tierwise policy collect`"


@dataclass(frozen=True, slots=True)
class Predictions:
    """Every tier's answers to n labelled examples, tiers from the device upwards.

    ``price`` (k,) is per call, in any unit. ``predicted`` and ``score`` are (k, n);
    ``service_ms`` (k, n) or None; ``example_id`` (n,) tells examples apart, so that splits which
    overlap are seen. ``models`` are digests by tier, empty where unknown.
    """

    tiers: tuple[str, ...]
    label_names: tuple[str, ...]
    label: Ints
    price: Floats
    predicted: Ints
    score: Floats
    example_id: npt.NDArray[np.bytes_]
    service_ms: Floats | None = None
    models: dict[str, str] = field(default_factory=dict)
    source: str = ""

    @property
    def num_examples(self) -> int:
        """Examples that all tiers have answered."""
        return len(self.label)

    @property
    def correct(self) -> Bools:
        """(k, n): whether a tier's answer is the label."""
        right: Bools = self.predicted == self.label
        return right

    @property
    def relative_price(self) -> Floats:
        """(k,) in prices of the top tier."""
        relative: Floats = self.price / self.price[-1]
        return relative

    @property
    def digest(self) -> str:
        """Names the examples with their labels, whatever their order."""
        both = sorted(
            example + str(label).encode()
            for example, label in zip(self.example_id.tolist(), self.label.tolist(), strict=True)
        )
        return hashlib.sha256(b"\n".join(both)).hexdigest()

    def take(self, chosen: npt.NDArray[np.int64]) -> Predictions:
        """The same for some of the examples."""
        return replace(
            self,
            label=self.label[chosen],
            predicted=self.predicted[:, chosen],
            score=self.score[:, chosen],
            example_id=self.example_id[chosen],
            service_ms=None if self.service_ms is None else self.service_ms[:, chosen],
        )


def read_predictions(path: Path, *, services: Sequence[int] | None = None) -> Predictions:
    """Reads and checks a file.

    Args:
        path: of the ``.npz``.
        services: which rows are the tiers, lowest first; by default, of three and more, the
            first, the second and the most accurate one; a file that was collected names its tiers
            and keeps them all.

    Raises:
        PolicyError: unreadable, incomplete, or holding what no policy can be fitted on.
    """
    arrays = _arrays(path)
    missing = [name for name in NEEDED if name not in arrays]
    if missing:
        raise PolicyError(f"{path} has no {', '.join(missing)}; {REMEDY}")
    label = _whole_numbers(arrays["label"], f"label of {path}")
    predicted = np.atleast_2d(_whole_numbers(arrays["predicted"], f"predicted of {path}"))
    score = np.atleast_2d(np.asarray(arrays["confidence"], np.float64))
    price = np.asarray(arrays["price"], np.float64)
    names = [str(name) for name in arrays["service"]]
    shape = (len(names), len(label))
    if predicted.shape != shape or score.shape != shape or price.shape != shape[:1]:
        raise PolicyError(
            f"{path}: {shape[0]} services and {shape[1]} labels, but predicted is "
            f"{predicted.shape}, confidence {score.shape} and price {price.shape}"
        )
    label_names = _label_names(arrays, label, predicted, path)
    chosen = _services(services, predicted == label, names, is_collected="model_digest" in arrays)
    tiers = _tier_names(names, chosen, is_collected="model_digest" in arrays)
    ids = arrays.get("example_id")
    predictions = Predictions(
        tiers=tiers,
        label_names=label_names,
        label=label,
        price=price[chosen],
        predicted=predicted[chosen],
        score=score[chosen],
        example_id=_row_ids(path, len(label)) if ids is None else np.asarray(ids, np.bytes_),
        service_ms=_service_ms(arrays, chosen),
        models=_models(arrays, chosen, tiers),
        source=path.name,
    )
    check(predictions)
    return predictions


def check(predictions: Predictions) -> None:
    """Refuses what no policy can be fitted on.

    Raises:
        PolicyError: says what is wrong and what to do.
    """
    where = predictions.source or "the predictions"
    num_tiers, num_examples = predictions.predicted.shape
    if not MIN_TIERS <= num_tiers <= MAX_TIERS:
        raise PolicyError(f"{where}: {num_tiers} tiers; between {MIN_TIERS} and {MAX_TIERS} can be")
    if num_examples == 0:
        raise PolicyError(f"{where} is empty; {REMEDY}")
    if (predictions.label < 0).any():
        missing = int((predictions.label < 0).sum())
        raise PolicyError(
            f"{where}: {missing} examples have no label; label them or leave them out"
        )
    if predictions.label.max() >= len(predictions.label_names):
        raise PolicyError(
            f"{where}: label {predictions.label.max()} of {len(predictions.label_names)} classes; "
            "use the label names that the models were trained with"
        )
    if len(np.unique(predictions.label)) < MIN_TIERS:
        raise PolicyError(f"{where}: all examples are of one class; nothing can be learned from it")
    if not np.isfinite(predictions.price).all() or (predictions.price < 0).any():
        raise PolicyError(f"{where}: a price is negative or not a number; state one for every tier")
    if predictions.price[-1] <= 0:
        raise PolicyError(f"{where}: the top tier is free, so nothing can be saved; ask it always")
    for tier, scores in zip(predictions.tiers[:-1], predictions.score[:-1], strict=True):
        if not np.isfinite(scores).all():
            raise PolicyError(
                f"{where}: {int((~np.isfinite(scores)).sum())} scores of {tier} are not finite; "
                "find out what its model does with these examples"
            )
        if num_examples > 1 and np.ptp(scores) == 0:
            raise PolicyError(
                f"{where}: the score of {tier} is always {scores[0]:g}; it tells nothing apart. "
                "Collect with the model's own confidences"
            )


def check_disjoint(train: Predictions, calibration: Predictions) -> None:
    """Refuses splits that a certificate cannot be built on.

    Raises:
        PolicyError: they share examples, or are of other tiers, labels or models.
    """
    if train.tiers != calibration.tiers:
        raise PolicyError(f"train is of {train.tiers}, calibration of {calibration.tiers}")
    if train.label_names != calibration.label_names:
        raise PolicyError("train and calibration have other classes; collect both with one task")
    if train.models != calibration.models:
        changed = [t for t in train.tiers if train.models.get(t) != calibration.models.get(t)]
        raise PolicyError(
            f"train and calibration were predicted by other models ({', '.join(changed)}); "
            "collect both again with the models that will serve"
        )
    shared = np.intersect1d(train.example_id, calibration.example_id)
    if len(shared):
        raise PolicyError(
            f"{len(shared)} examples are both in {train.source} and in {calibration.source}; "
            "a guarantee needs calibration examples that nothing was chosen on"
        )


def write_predictions(
    path: Path, predictions: Predictions, *, probabilities: Floats | None = None
) -> None:
    """Writes a file that ``read_predictions`` reads; ``probabilities`` are (k, n, classes)."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "label": predictions.label.astype(np.int32),
        "label_names": np.asarray(predictions.label_names),
        "service": np.asarray(predictions.tiers),
        "price": predictions.price,
        "predicted": predictions.predicted.astype(np.int32),
        "confidence": predictions.score,
        "correct": predictions.correct,
        "example_id": predictions.example_id,
        "model_digest": np.asarray(
            [predictions.models.get(tier, "") for tier in predictions.tiers]
        ),
    }
    if predictions.service_ms is not None:
        arrays["service_ms"] = predictions.service_ms
    if probabilities is not None:
        arrays["probabilities"] = probabilities.astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def _arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not hasattr(file, "files"):
                raise PolicyError(f"{path} is a single array and no .npz; {REMEDY}")
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise PolicyError(f"{path} is not there; {REMEDY}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise PolicyError(f"{path} cannot be read as .npz: {error}; {REMEDY}") from error


def _whole_numbers(values: npt.NDArray[np.generic], what: str) -> Ints:
    if values.dtype.kind not in "iub" and not (
        values.dtype.kind == "f" and np.array_equal(values, np.round(values.astype(np.float64)))
    ):
        raise PolicyError(f"{what} must be class indices, not {values.dtype}")
    return values.astype(np.int64)


def _label_names(
    arrays: dict[str, npt.NDArray[np.generic]], label: Ints, predicted: Ints, path: Path
) -> tuple[str, ...]:
    if "label_names" in arrays:
        names = tuple(str(name) for name in arrays["label_names"])
    else:
        names = tuple(str(i) for i in range(int(max(label.max(), predicted.max(), 0)) + 1))
    if len(names) < MIN_TIERS:
        raise PolicyError(f"{path}: one class only; a policy needs at least two")
    return names


def _services(
    asked: Sequence[int] | None, correct: Bools, names: list[str], *, is_collected: bool
) -> list[int]:
    if asked is not None:
        unknown = [index for index in asked if not 0 <= index < len(names)]
        if unknown or len(set(asked)) != len(asked) or len(asked) < MIN_TIERS:
            known = ", ".join(f"{index} {name}" for index, name in enumerate(names))
            raise PolicyError(f"--tiers takes at least two different services of: {known}")
        return list(asked)
    if is_collected or len(names) == MIN_TIERS:
        return list(range(len(names)))
    top = int(correct.mean(axis=1).argmax())
    return [0, 1, top] if top not in (0, 1) else [0, top] if top else [1, 0]


def _tier_names(names: list[str], chosen: list[int], *, is_collected: bool) -> tuple[str, ...]:
    if is_collected:
        return tuple(names[index] for index in chosen)
    middle = [f"regional{position or ''}" for position in range(len(chosen) - 2)]
    return ("edge", *middle, "cloud")


def _row_ids(path: Path, num_examples: int) -> npt.NDArray[np.bytes_]:
    return np.asarray([f"{path.name}:{row}" for row in range(num_examples)], np.bytes_)


def _service_ms(arrays: dict[str, npt.NDArray[np.generic]], chosen: list[int]) -> Floats | None:
    values = arrays.get("service_ms")
    return None if values is None else np.asarray(values, np.float64)[chosen]


def _models(
    arrays: dict[str, npt.NDArray[np.generic]], chosen: list[int], tiers: tuple[str, ...]
) -> dict[str, str]:
    digests = arrays.get("model_digest")
    if digests is None:
        return {}
    return {tier: str(digests[index]) for tier, index in zip(tiers, chosen, strict=True)}
