"""Predictions on disk: one ``.npz`` without pickles.

``label`` (n), ``service`` (k), ``price`` (k), ``predicted`` and ``confidence`` (k, n) are needed,
all else is optional, so that published predictions of other people's services can be used as they
are. ``beliefs`` (k, n, c) is what averages are made of (``runtime.core.beliefs``).
"""

from __future__ import annotations

import hashlib
import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from model_zoo.policies.predictions import (
    MIN_TIERS,
    REMEDY,
    Bools,
    Floats,
    Ints,
    Predictions,
    check,
)
from runtime.adapters.artifacts import write_artifact
from runtime.core.beliefs import WHOLE, Belief, is_belief
from runtime.errors import PolicyError
from runtime.policy import Score

NEEDED = ("label", "service", "price", "predicted", "confidence")
# More than any known task has; a file that says so is broken or hostile.
MAX_LABELS = 1 << 16
# Unpacked. A few bytes of a hostile file can stand for more than there is memory.
MAX_UNPACKED_BYTES = 4 << 30
# What numpy and zipfile are known to raise on files that are damaged on purpose.
_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    EOFError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
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
    score = np.atleast_2d(_numbers(arrays["confidence"], f"confidence of {path}"))
    price = _numbers(arrays["price"], f"price of {path}")
    names = _texts(arrays["service"], f"service of {path}")
    shape = (len(names), label.size)
    if (
        label.ndim != 1
        or predicted.shape != shape
        or score.shape != shape
        or price.shape != shape[:1]
    ):
        raise PolicyError(
            f"{path}: {shape[0]} services and {label.shape} labels, but predicted is "
            f"{predicted.shape}, confidence {score.shape} and price {price.shape}"
        )
    if not label.size:
        raise PolicyError(f"{path} is empty; {REMEDY}")
    label_names = _label_names(arrays, label, predicted, path)
    chosen = _services(services, predicted == label, names, is_collected="model_digest" in arrays)
    tiers = _tier_names(names, chosen, is_collected="model_digest" in arrays)
    predictions = Predictions(
        tiers=tiers,
        label_names=label_names,
        label=label,
        price=price[chosen],
        predicted=predicted[chosen],
        score=score[chosen],
        example_id=_example_ids(arrays, path, label.size),
        scores=_scores(arrays, (len(names), label.size), chosen, path),
        service_ms=_service_ms(arrays, shape, chosen, path),
        beliefs=_beliefs(arrays, (*shape, len(label_names)), chosen, path),
        models=_models(arrays, names, chosen, tiers, path=path),
        source=path.name,
    )
    check(predictions)
    return predictions


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes a file that ``read_predictions`` reads."""
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
    if predictions.scores:
        arrays["score_kinds"] = np.asarray(list(predictions.scores))
        arrays["scores"] = np.stack(list(predictions.scores.values()))
    if predictions.beliefs is not None:
        arrays["beliefs"] = predictions.beliefs
    if predictions.service_ms is not None:
        arrays["service_ms"] = predictions.service_ms
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_artifact(path, buffer.getvalue())


def _arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            arrays = _unpacked(file) if isinstance(file, np.lib.npyio.NpzFile) else {}
    except FileNotFoundError:
        raise PolicyError(f"{path} is not there; {REMEDY}") from None
    except _UNREADABLE as error:
        raise PolicyError(f"{path} cannot be read as .npz: {error}; {REMEDY}") from error
    if not arrays:
        raise PolicyError(f"{path} is no .npz with arrays; {REMEDY}")
    return arrays


def _unpacked(file: np.lib.npyio.NpzFile) -> dict[str, npt.NDArray[np.generic]]:
    size = 0 if file.zip is None else sum(part.file_size for part in file.zip.infolist())
    if size > MAX_UNPACKED_BYTES:
        raise ValueError(f"{size} bytes unpacked, over {MAX_UNPACKED_BYTES}")
    arrays = {name: file[name] for name in file.files}
    # A member that is no array comes as the bytes that it is.
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def _whole_numbers(values: npt.NDArray[np.generic], what: str) -> Ints:
    if values.dtype.kind in "iubf":
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int64)
        if np.array_equal(whole, values):
            return whole
    raise PolicyError(f"{what} must be class indices, not {values.dtype}")


def _numbers(values: npt.NDArray[np.generic], what: str) -> Floats:
    if values.dtype.kind not in "iubf":
        raise PolicyError(f"{what} must be numbers, not {values.dtype}")
    with np.errstate(over="ignore"):
        return values.astype(np.float64)


def _texts(values: npt.NDArray[np.generic], what: str) -> list[str]:
    if values.dtype.kind not in "SU" or values.ndim != 1:
        raise PolicyError(f"{what} must be a list of texts")
    try:
        texts = [one.decode() if isinstance(one, bytes) else str(one) for one in values.tolist()]
        # Half a surrogate pair could not be written down again.
        "".join(texts).encode()
    except ValueError as error:
        raise PolicyError(f"{what} must be a list of texts: {error}") from error
    return texts


def _label_names(
    arrays: dict[str, npt.NDArray[np.generic]], label: Ints, predicted: Ints, path: Path
) -> tuple[str, ...]:
    if "label_names" in arrays:
        names = tuple(_texts(arrays["label_names"], f"label_names of {path}"))
        num_labels = len(names)
    else:
        num_labels = max(int(label.max()), int(predicted.max(initial=0)), 0) + 1
        names = tuple(str(index) for index in range(min(num_labels, MAX_LABELS)))
    if num_labels < MIN_TIERS:
        raise PolicyError(f"{path}: one class only; a policy needs at least two")
    if num_labels > MAX_LABELS:
        raise PolicyError(f"{path}: {num_labels} classes; at most {MAX_LABELS} can be")
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
    if is_collected or len(names) <= MIN_TIERS:
        return list(range(len(names)))
    top = int(correct.mean(axis=1).argmax())
    return [0, 1, top] if top not in (0, 1) else [0, top] if top else [1, 0]


def _tier_names(names: list[str], chosen: list[int], *, is_collected: bool) -> tuple[str, ...]:
    if is_collected:
        return tuple(names[index] for index in chosen)
    middle = [f"regional{position or ''}" for position in range(len(chosen) - 2)]
    return ("edge", *middle, "cloud")


def _example_ids(
    arrays: dict[str, npt.NDArray[np.generic]], path: Path, num_examples: int
) -> npt.NDArray[np.bytes_]:
    ids = arrays.get("example_id")
    if ids is None:
        # By contents, not by name: a copy of a file holds the same examples.
        digest = _digest_of(arrays)
        return np.asarray([f"{digest}:{row}" for row in range(num_examples)], np.bytes_)
    if ids.shape != (num_examples,) or ids.dtype.kind not in "SUiu":
        raise PolicyError(f"{path}: example_id must be a text or number for every example")
    if ids.dtype.kind == "U":
        texts = _texts(ids, f"example_id of {path}")
        return np.asarray([text.encode() for text in texts], np.bytes_)
    return ids.astype(np.bytes_)


def _service_ms(
    arrays: dict[str, npt.NDArray[np.generic]],
    shape: tuple[int, int],
    chosen: list[int],
    path: Path,
) -> Floats | None:
    values = arrays.get("service_ms")
    if values is None:
        return None
    times = _numbers(values, f"service_ms of {path}")
    if times.shape != shape or not (times >= 0).all():
        raise PolicyError(f"{path}: service_ms must be a time for every answer")
    return times[chosen]


def _scores(
    arrays: dict[str, npt.NDArray[np.generic]],
    shape: tuple[int, int],
    chosen: list[int],
    path: Path,
) -> dict[Score, Floats]:
    if "scores" not in arrays or "score_kinds" not in arrays:
        return {}
    kinds = _texts(arrays["score_kinds"], f"score_kinds of {path}")
    scores = _numbers(arrays["scores"], f"scores of {path}")
    if scores.shape != (len(kinds), *shape) or not np.isfinite(scores).all():
        raise PolicyError(f"{path}: scores must be a finite number for every kind and answer")
    known: tuple[Score, ...] = get_args(Score)
    return {kind: scores[kinds.index(kind)][chosen] for kind in known if kind in kinds}


def _beliefs(
    arrays: dict[str, npt.NDArray[np.generic]],
    shape: tuple[int, int, int],
    chosen: list[int],
    path: Path,
) -> Belief | None:
    values = arrays.get("beliefs")
    if values is None:
        return None
    beliefs = values.astype("<u2") if values.dtype.kind == "u" else None
    is_whole = beliefs is not None and np.array_equal(beliefs, values)
    if beliefs is None or values.shape != shape or not is_whole or not is_belief(beliefs):
        raise PolicyError(f"{path}: beliefs must be {WHOLE} parted over the classes; {REMEDY}")
    found: Belief = beliefs[chosen]
    return found


def _models(
    arrays: dict[str, npt.NDArray[np.generic]],
    names: list[str],
    chosen: list[int],
    tiers: tuple[str, ...],
    *,
    path: Path,
) -> dict[str, str]:
    if "model_digest" not in arrays:
        return {}
    digests = _texts(arrays["model_digest"], f"model_digest of {path}")
    if len(digests) != len(names):
        raise PolicyError(f"{path}: {len(digests)} model digests for {len(names)} services")
    return {
        tier: digests[index] for tier, index in zip(tiers, chosen, strict=True) if digests[index]
    }


def _digest_of(arrays: dict[str, npt.NDArray[np.generic]]) -> str:
    digest = hashlib.sha256()
    for name in NEEDED:
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:32]
