"""Versions of the bundled edge model for the rollout demo: one as good, and one quietly worse.

A share of the int8 weights is moved by a few steps, drawn from a seed. Nothing in the file shows
it: it loads, has the same inputs and outputs, and gives numbers. How accurate it still is, is
measured and written into its manifest, as an honest publisher would.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from model_zoo.calibrate import calibration_error, probabilities_of, scores_of
from model_zoo.catalog import bundled_model, bundled_pictures
from model_zoo.idx import to_pixels
from runtime.adapters.artifacts import describe_file, open_model, write_model
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.delta.scan import scan
from runtime.manifest import Measured, ModelManifest
from runtime.messages import Tier

# Shorter arrays are scales and biases: moving those would show.
_MIN_WEIGHTS = 256
_MOST = 127
_BATCH = 250


@dataclass(frozen=True, slots=True)
class Variation:
    """``share`` of the weights are moved by up to ``steps`` of their 255."""

    version: int
    share: float
    steps: int
    seed: int


# What comes with the package is version 2.
AS_GOOD = Variation(version=3, share=0.05, steps=2, seed=1)
QUIETLY_WORSE = Variation(version=4, share=0.1, steps=20, seed=1)


def write_variation(variation: Variation, folder: Path, tier: Tier = Tier.EDGE) -> Measured:
    """Writes a varied copy of a bundled model as a model folder; returns what it comes to.

    Raises:
        ArtifactError: the bundled model cannot be read, or a file not be written.
    """
    model = open_model(bundled_model(tier))
    (name,) = model.manifest.files
    contents = varied(model.read_verified(name), variation)
    measured = _measured(contents, model.manifest)
    manifest = msgspec.structs.replace(
        model.manifest,
        version=str(variation.version),
        files={name: describe_file(contents)},
        members=tuple(
            msgspec.structs.replace(one, accuracy=measured.accuracy)
            for one in model.manifest.members
        ),
        measured=measured,
    )
    write_model(folder, manifest, {name: contents})
    return measured


def varied(contents: bytes, variation: Variation) -> bytes:
    """The same model file with some of its int8 weights moved; the same for the same seed."""
    random = np.random.default_rng(variation.seed)
    changed = bytearray(contents)
    for place in scan(contents):
        if place.kind.width != 1 or place.length < _MIN_WEIGHTS:
            continue
        weights = np.frombuffer(contents, np.int8, place.length, place.start).astype(np.int16)
        moved = random.random(place.length) < variation.share
        by = random.integers(-variation.steps, variation.steps + 1, place.length)
        clipped = np.clip(weights + moved * by, -_MOST, _MOST).astype(np.int8)
        changed[place.start : place.end] = clipped.tobytes()
    return bytes(changed)


def _measured(contents: bytes, manifest: ModelManifest) -> Measured:
    split = bundled_pictures("test")
    logits = [_logits(contents, to_pixels(split.pictures))]
    shares = probabilities_of(logits, manifest.temperature)
    confidence, is_right = scores_of(shares, split.labels)
    stands = confidence >= manifest.accept_at
    return Measured(
        accuracy=float(is_right.mean()),
        num_examples=len(split.labels),
        ece_before=calibration_error(probabilities_of(logits), split.labels),
        ece_after=calibration_error(shares, split.labels),
        parameters=manifest.measured.parameters if manifest.measured else 1,
        size_bytes=len(contents),
        answered_share=float(stands.mean()),
        answered_accuracy=float(is_right[stands].mean()),
    )


def _logits(contents: bytes, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    backend = OnnxBackend.load(contents, source="a variation of the bundled model")
    parts = [
        backend.run({"image": pixels[start : start + _BATCH]})["logits"]
        for start in range(0, len(pixels), _BATCH)
    ]
    backend.close()
    return np.concatenate(parts).astype(np.float32)
