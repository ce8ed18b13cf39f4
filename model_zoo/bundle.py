"""Makes a task's shipped folder from float32 ONNX files and data (numpy, onnx, ONNX Runtime).

Quantize, calibrate, choose thresholds, measure on the whole test set, write manifests and pictures,
fit the policy. The test set serves for the figures in the manifests, and its second half, which is
not shipped, for the policy's certificate.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx

from model_zoo import calibrate
from model_zoo.catalog import LABELS
from model_zoo.idx import PICTURE_SIDE, Split, to_pixels
from model_zoo.onnx_files import (
    INPUT_NAME,
    OUTPUT_NAME,
    count_parameters,
    quantize_weights,
    serialize,
    strip,
)
from model_zoo.policies.bundled import write_bundled_policy
from model_zoo.predict import Float32s, logits_of_file
from model_zoo.quantize import quantize
from model_zoo.report import BundleReport, Candidate, TierReport
from runtime.adapters.artifacts import describe_file, write_artifact, write_model
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.manifest import Measured, Member, ModelManifest, Provenance
from runtime.messages import USUAL_TIERS, TensorSpec, Tier

NUM_TEST_PICTURES = 5_000
NUM_CALIBRATION_PICTURES = 2_000
# The oldest release that the product runs on; the files' operators are older.
MIN_ONNXRUNTIME = "1.20"
STORED_FORMAT = "int8 weights per channel, float32 arithmetic"
INPUTS = (TensorSpec(INPUT_NAME, "FP32", (-1, PICTURE_SIDE, PICTURE_SIDE)),)
OUTPUTS = (TensorSpec(OUTPUT_NAME, "FP32", (-1, len(LABELS))),)


class HeldOut(NamedTuple):
    """Pictures that no network was trained on."""

    calibration: Split
    test: Split


@dataclass(frozen=True, slots=True)
class BuiltTier:
    """One tier's files, and each member's logits on both parts of the held-out data.

    ``float32_test`` are those on the test part before weights were made smaller.
    """

    files: dict[str, bytes]
    calibration: list[Float32s]
    test: list[Float32s]
    float32_test: list[Float32s]
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
            quantized to int8; those of the cloud keep float32 arithmetic, with weights stored
            as int8.
        data: calibration pictures for every choice, test pictures for the figures.
        output: the folder, made when missing; files of the same names are replaced.
        name: of the model, the same on all tiers.
        version: of the model.
        provenance: what is the same for all tiers.
        progress: called with the name of each step as it starts.

    Raises:
        ArtifactError: a file cannot be run or written.
        PolicyError: the models' answers are nothing that a policy can be fitted on.
    """
    built: dict[Tier, BuiltTier] = {}
    for tier in USUAL_TIERS:
        progress(f"{tier}: quantize and measure")
        built[tier] = build_tier(networks[tier], data, is_int8=tier is not Tier.CLOUD)
    progress("calibrate and choose thresholds")
    weights = {
        tier: calibrate.fit_weights(model.calibration, data.calibration.labels)
        for tier, model in built.items()
    }
    temperatures = {
        tier: calibrate.fit_temperature(model.calibration, data.calibration.labels, weights[tier])
        for tier, model in built.items()
    }
    chosen = calibrate.choose_thresholds(
        scores_of_tiers(
            [
                calibrate.probabilities_of(
                    built[tier].calibration, temperatures[tier], weights[tier]
                )
                for tier in USUAL_TIERS
            ],
            data.calibration.labels,
        )
    )
    on_test = {
        tier: calibrate.probabilities_of(built[tier].test, temperatures[tier], weights[tier])
        for tier in USUAL_TIERS
    }
    accept_at = {
        Tier.EDGE: chosen.edge_accept_at,
        Tier.REGIONAL: chosen.regional_accept_at,
        # Nobody is above the cloud: its answer stands.
        Tier.CLOUD: 0.0,
    }
    progress("write files")
    reports: dict[str, TierReport] = {}
    for tier, model in built.items():
        measured = measure(
            model,
            on_test[tier],
            data.test.labels,
            accept_at=accept_at[tier],
            weights=weights[tier],
        )
        manifest = manifest_of(
            model,
            measured,
            data.test.labels,
            name=name,
            version=version,
            tier=tier,
            accept_at=accept_at[tier],
            temperature=temperatures[tier],
            weights=weights[tier],
            provenance=provenance,
        )
        write_model(output / tier, manifest, model.files)
        reports[tier.value] = report_of(model, manifest, measured)
    pictures_bytes = write_pictures(output / "pictures", data)
    policy = write_bundled_policy(
        output,
        data.calibration,
        data.test,
        name=name,
        seed=provenance.seed,
        progress=progress,
    )
    return BundleReport(
        name=name,
        version=version,
        folder=str(output),
        size_bytes=pictures_bytes + sum(report.size_bytes for report in reports.values()),
        tiers=reports,
        cascade=calibrate.cascade(
            scores_of_tiers([on_test[tier] for tier in USUAL_TIERS], data.test.labels),
            chosen.edge_accept_at,
            chosen.regional_accept_at,
        ),
        policy=policy.gears[0].promise if policy else None,
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


def build_tier(networks: Mapping[str, bytes], data: HeldOut, *, is_int8: bool) -> BuiltTier:
    """One tier's files, made small, and what they answer on the held-out data."""
    calibration, test = to_pixels(data.calibration.pictures), to_pixels(data.test.pictures)
    files: dict[str, bytes] = {}
    tried: tuple[Candidate, ...] = ()
    numeric_format = STORED_FORMAT
    for name, contents in networks.items():
        if is_int8:
            quantized = quantize(contents, calibration, data.calibration.labels)
            files[f"{name}.onnx"], tried = quantized.model, quantized.tried
            numeric_format = f"int8 per channel, ranges by {quantized.choice}"
        else:
            small = strip(quantize_weights(onnx.load_from_string(contents)))
            files[f"{name}.onnx"] = serialize(small)
    before = [logits_of_file(file, test) for file in networks.values()]
    return BuiltTier(
        files=files,
        calibration=[logits_of_file(file, calibration) for file in files.values()],
        test=[logits_of_file(file, test) for file in files.values()],
        float32_test=before,
        parameters=sum(count_parameters(onnx.load_from_string(file)) for file in networks.values()),
        numeric_format=numeric_format,
        tried=tried,
    )


def scores_of_tiers(
    probabilities: Sequence[calibrate.Float64s], labels: calibrate.Labels
) -> calibrate.CascadeScores:
    """What edge, regional and cloud make of the same examples."""
    return calibrate.CascadeScores(
        *(calibrate.scores_of(shares, labels) for shares in probabilities)
    )


def manifest_of(
    model: BuiltTier,
    measured: Measured,
    test_labels: calibrate.Labels,
    *,
    name: str,
    version: str,
    tier: Tier,
    accept_at: float,
    temperature: float,
    weights: Sequence[float],
    provenance: Provenance,
) -> ModelManifest:
    """The manifest of one tier of this task."""
    return ModelManifest(
        name=name,
        version=version,
        tier=tier,
        files={file: describe_file(contents) for file, contents in model.files.items()},
        members=members_of(model, test_labels, weights),
        inputs=INPUTS,
        outputs=OUTPUTS,
        labels=LABELS,
        accept_at=accept_at,
        temperature=temperature,
        min_runtime={"onnxruntime": MIN_ONNXRUNTIME},
        measured=measured,
        provenance=msgspec.structs.replace(
            provenance,
            numeric_format=model.numeric_format,
            threshold_rule="" if tier is Tier.CLOUD else calibrate.THRESHOLD_RULE,
        ),
    )


def members_of(
    model: BuiltTier, labels: calibrate.Labels, weights: Sequence[float]
) -> tuple[Member, ...]:
    """The members of a tier's manifest."""
    return tuple(
        Member(Path(file).stem, file, weight, calibrate.accuracy_of(logits, labels))
        for file, logits, weight in zip(model.files, model.test, weights, strict=True)
    )


def measure(
    model: BuiltTier,
    probabilities: calibrate.Float64s,
    labels: calibrate.Labels,
    *,
    accept_at: float,
    weights: Sequence[float],
) -> Measured:
    """What a tier comes to on the test pictures."""
    confidence, correct = calibrate.scores_of(probabilities, labels)
    stands = confidence >= accept_at
    uncalibrated = calibrate.probabilities_of(model.test, weights=weights)
    return Measured(
        accuracy=float(correct.mean()),
        num_examples=len(labels),
        ece_before=calibrate.calibration_error(uncalibrated, labels),
        ece_after=calibrate.calibration_error(probabilities, labels),
        parameters=model.parameters,
        size_bytes=sum(len(file) for file in model.files.values()),
        accuracy_float32=calibrate.accuracy_of(
            calibrate.probabilities_of(model.float32_test, weights=weights), labels
        ),
        answered_share=float(stands.mean()),
        answered_accuracy=float(correct[stands].mean()) if stands.any() else None,
    )


def report_of(model: BuiltTier, manifest: ModelManifest, measured: Measured) -> TierReport:
    """What became of one tier."""
    backends = [OnnxBackend.load(file, source=name) for name, file in model.files.items()]
    return TierReport(
        accuracy=measured.accuracy,
        accuracy_float32=measured.accuracy_float32 or 0.0,
        ece_before=measured.ece_before,
        ece_after=measured.ece_after,
        temperature=manifest.temperature,
        accept_at=manifest.accept_at,
        parameters=measured.parameters,
        size_bytes=measured.size_bytes,
        typical_ms=sum(backend.typical_ms for backend in backends),
        numeric_format=model.numeric_format,
        members={member.name: member.accuracy or 0.0 for member in manifest.members},
        tried=model.tried,
    )
