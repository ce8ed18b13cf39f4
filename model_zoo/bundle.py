"""Makes a task's shipped folder from float32 ONNX files and data (numpy, onnx, ONNX Runtime).

Quantize, calibrate, choose thresholds, measure on the whole test set, write manifests and pictures.
The test set serves for the figures in the manifests and for nothing else.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import onnx

from model_zoo import calibrate
from model_zoo.catalog import LABELS, PICTURE_SIDE
from model_zoo.onnx_files import (
    INPUT_NAME,
    OUTPUT_NAME,
    count_parameters,
    halve_weights,
    serialize,
    strip,
)
from model_zoo.predict import Float32s, combine, logits_of_file, to_pixels
from model_zoo.quantize import Candidate, quantize
from runtime.adapters.artifacts import describe_file, write_artifact, write_model
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.manifest import Measured, Member, ModelManifest, Provenance
from runtime.messages import TensorSpec, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from model_zoo.calibrate import Labels
    from model_zoo.idx import Split

NUM_TEST_PICTURES = 5_000
NUM_CALIBRATION_PICTURES = 2_000
# The oldest release that the product runs on; the files' operators are older.
MIN_ONNXRUNTIME = "1.20"
HALF_FORMAT = "float16 weights, float32 arithmetic"
INPUTS = (TensorSpec(INPUT_NAME, "FP32", (-1, PICTURE_SIDE, PICTURE_SIDE)),)
OUTPUTS = (TensorSpec(OUTPUT_NAME, "FP32", (-1, len(LABELS))),)


class HeldOut(NamedTuple):
    """Pictures that no network was trained on."""

    calibration: Split
    test: Split


class TierReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one tier; accuracies and errors are of the test set."""

    accuracy: float
    accuracy_float32: float
    ece_before: float
    ece_after: float
    temperature: float
    accept_at: float
    parameters: int
    size_bytes: int
    typical_ms: float
    numeric_format: str
    members: dict[str, float] = {}
    tried: tuple[Candidate, ...] = ()


class BundleReport(msgspec.Struct, frozen=True):
    """What became of a build; ``cascade`` is of the test set at the chosen thresholds."""

    name: str
    version: str
    folder: str
    size_bytes: int
    tiers: dict[str, TierReport]
    cascade: calibrate.CascadeResult


@dataclass(frozen=True, slots=True)
class _Built:
    """One tier's files with its ensemble logits on both parts of the held-out data."""

    files: dict[str, bytes]
    calibration_logits: Float32s
    test_logits: Float32s
    members: tuple[Member, ...]
    accuracy_float32: float
    parameters: int
    numeric_format: str
    tried: tuple[Candidate, ...]


def write_bundle(
    networks: Mapping[Tier, Mapping[str, bytes]],
    data: HeldOut,
    output: Path,
    *,
    name: str,
    version: str,
    provenance: Provenance,
    progress: Callable[[str], None] = lambda _step: None,
) -> BundleReport:
    """Writes ``edge``, ``regional``, ``cloud`` and ``pictures`` into a folder.

    Args:
        networks: float32 ONNX files by tier and member name. Those of edge and regional are
            quantized to int8; those of the cloud get float16 weights.
        data: calibration pictures for every choice, test pictures for the figures.
        output: the folder, made when missing; same-named files are replaced.
        name: of the model, the same on all tiers.
        version: of the model.
        provenance: what is the same for all tiers.
        progress: called with the name of each step as it starts.

    Raises:
        ArtifactError: a file cannot be run or written.
    """
    built: dict[Tier, _Built] = {}
    for tier in Tier:
        progress(f"quantize and measure {tier}")
        built[tier] = _build(networks[tier], data, is_int8=tier is not Tier.CLOUD)
    progress("choose thresholds")
    temperatures = {
        tier: calibrate.fit_temperature(model.calibration_logits, data.calibration.labels)
        for tier, model in built.items()
    }
    chosen = calibrate.choose_thresholds(
        _scores(
            {tier: model.calibration_logits for tier, model in built.items()},
            data.calibration.labels,
            temperatures,
        )
    )
    accept_at = {
        Tier.EDGE: chosen.edge_accept_at,
        Tier.REGIONAL: chosen.regional_accept_at,
        # Nobody is above the cloud: its answer stands.
        Tier.CLOUD: 0.0,
    }
    test_scores = _scores(
        {tier: model.test_logits for tier, model in built.items()}, data.test.labels, temperatures
    )
    progress("write files")
    reports: dict[str, TierReport] = {}
    for tier, model in built.items():
        measured = _measure(model, data.test, temperatures[tier], accept_at[tier])
        manifest = ModelManifest(
            name=name,
            version=version,
            tier=tier,
            files={file: describe_file(contents) for file, contents in model.files.items()},
            members=model.members,
            inputs=INPUTS,
            outputs=OUTPUTS,
            labels=LABELS,
            accept_at=accept_at[tier],
            temperature=temperatures[tier],
            min_runtime={"onnxruntime": MIN_ONNXRUNTIME},
            measured=measured,
            provenance=msgspec.structs.replace(
                provenance,
                numeric_format=model.numeric_format,
                threshold_rule=calibrate.THRESHOLD_RULE if tier is not Tier.CLOUD else "",
            ),
        )
        write_model(output / tier, manifest, model.files)
        reports[tier.value] = _report(model, manifest, measured)
    pictures_bytes = write_pictures(output / "pictures", data)
    return BundleReport(
        name=name,
        version=version,
        folder=str(output),
        size_bytes=pictures_bytes + sum(report.size_bytes for report in reports.values()),
        tiers=reports,
        cascade=calibrate.cascade(test_scores, chosen.edge_accept_at, chosen.regional_accept_at),
    )


def write_pictures(folder: Path, data: HeldOut) -> int:
    """Writes the first pictures of both parts, compressed and without pickle; returns the bytes."""
    total = 0
    for part, split, number in (
        ("test", data.test, NUM_TEST_PICTURES),
        ("calibration", data.calibration, NUM_CALIBRATION_PICTURES),
    ):
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, pictures=split.pictures[:number], labels=split.labels[:number].astype(np.uint8)
        )
        write_artifact(folder / f"{part}.npz", buffer.getvalue())
        total += buffer.tell()
    return total


def _scores(
    logits: Mapping[Tier, Float32s], labels: Labels, temperatures: Mapping[Tier, float]
) -> calibrate.CascadeScores:
    return calibrate.CascadeScores(
        *(
            calibrate.TierScores(
                calibrate.confidence_of(logits[tier], temperatures[tier]),
                logits[tier].argmax(axis=1) == labels,
            )
            for tier in Tier
        )
    )


def _build(networks: Mapping[str, bytes], data: HeldOut, *, is_int8: bool) -> _Built:
    calibration, test = to_pixels(data.calibration.pictures), to_pixels(data.test.pictures)
    files: dict[str, bytes] = {}
    tried: tuple[Candidate, ...] = ()
    numeric_format = HALF_FORMAT
    for name, contents in networks.items():
        if is_int8:
            quantized = quantize(contents, calibration, data.calibration.labels)
            files[f"{name}.onnx"], tried = quantized.model, quantized.tried
            numeric_format = f"int8 per channel, ranges by {quantized.choice}"
        else:
            small = strip(halve_weights(onnx.load_from_string(contents)))
            files[f"{name}.onnx"] = serialize(small)
    on_test = [logits_of_file(file, test) for file in files.values()]
    before = [logits_of_file(file, test) for file in networks.values()]
    return _Built(
        files=files,
        calibration_logits=combine([logits_of_file(file, calibration) for file in files.values()]),
        test_logits=combine(on_test),
        members=tuple(
            Member(name, f"{name}.onnx", accuracy=calibrate.accuracy_of(logits, data.test.labels))
            for name, logits in zip(networks, on_test, strict=True)
        ),
        accuracy_float32=calibrate.accuracy_of(combine(before), data.test.labels),
        parameters=sum(count_parameters(onnx.load_from_string(file)) for file in networks.values()),
        numeric_format=numeric_format,
        tried=tried,
    )


def _measure(model: _Built, test: Split, temperature: float, accept_at: float) -> Measured:
    logits, labels = model.test_logits, test.labels
    stands = calibrate.confidence_of(logits, temperature) >= accept_at
    correct = logits.argmax(axis=1) == labels
    return Measured(
        accuracy=calibrate.accuracy_of(logits, labels),
        num_examples=len(labels),
        ece_before=calibrate.calibration_error(logits, labels),
        ece_after=calibrate.calibration_error(logits, labels, temperature),
        parameters=model.parameters,
        size_bytes=sum(len(file) for file in model.files.values()),
        accuracy_float32=model.accuracy_float32,
        answered_share=float(stands.mean()),
        answered_accuracy=float(correct[stands].mean()) if stands.any() else None,
    )


def _report(model: _Built, manifest: ModelManifest, measured: Measured) -> TierReport:
    backends = [OnnxBackend.load(file, source=name) for name, file in model.files.items()]
    return TierReport(
        accuracy=measured.accuracy,
        accuracy_float32=model.accuracy_float32,
        ece_before=measured.ece_before,
        ece_after=measured.ece_after,
        temperature=manifest.temperature,
        accept_at=manifest.accept_at,
        parameters=measured.parameters,
        size_bytes=measured.size_bytes,
        typical_ms=sum(backend.typical_ms for backend in backends),
        numeric_format=model.numeric_format,
        members={member.name: member.accuracy or 0.0 for member in model.members},
        tried=model.tried,
    )
