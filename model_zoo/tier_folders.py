"""From float32 ONNX files of any classification task to the model folders of three tiers.

Quantize, calibrate, choose thresholds, measure, write manifests (numpy, onnx, ONNX Runtime). What
the inputs are makes no difference here: their names and shapes are the task's ``Signature``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import onnx

from model_zoo import calibrate
from model_zoo.onnx_files import INPUT_NAME, count_parameters, quantize_weights, serialize, strip
from model_zoo.predict import Float32s, Inputs, logits_of_file
from model_zoo.quantize import quantize
from model_zoo.report import Candidate, TierReport
from runtime.adapters.artifacts import describe_file, write_model
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.manifest import Measured, Member, ModelManifest, Provenance
from runtime.messages import USUAL_TIERS, TensorSpec, Tier

# The oldest release that the product runs on; the files' operators are older.
MIN_ONNXRUNTIME = "1.20"
STORED_FORMAT = "int8 weights per channel, float32 arithmetic"


class Signature(NamedTuple):
    """What callers see of all tiers' models of a task: tensors and classes."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]


class Labelled(NamedTuple):
    """The labels of what no network was trained on."""

    calibration: calibrate.Labels
    test: calibrate.Labels


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


def make_small(
    networks: Mapping[str, bytes],
    calibration: Float32s,
    labels: calibrate.Labels,
    test: Float32s,
    *,
    is_int8: bool,
    input_name: str = INPUT_NAME,
) -> BuiltTier:
    """One tier's files, made small, and what they answer on the held-out data.

    Args:
        networks: float32 ONNX files by member name, with the one input ``input_name``.
        calibration: inputs that choices are made on, with their ``labels``.
        labels: class indices of ``calibration``.
        test: inputs for the figures.
        is_int8: quantize to int8; else keep float32 arithmetic, with weights stored as int8.
        input_name: of the files' input.
    """
    files: dict[str, bytes] = {}
    tried: tuple[Candidate, ...] = ()
    numeric_format = STORED_FORMAT
    for name, contents in networks.items():
        if is_int8:
            quantized = quantize(contents, calibration, labels, input_name=input_name)
            files[f"{name}.onnx"], tried = quantized.model, quantized.tried
            numeric_format = f"int8 per channel, ranges by {quantized.choice}"
        else:
            small = strip(quantize_weights(onnx.load_from_string(contents)))
            files[f"{name}.onnx"] = serialize(small)
    return built_of(
        files, networks, calibration, test,
        numeric_format=numeric_format, tried=tried, input_name=input_name,
    )  # fmt: skip


def built_of(
    files: dict[str, bytes],
    networks: Mapping[str, bytes],
    calibration: Inputs,
    test: Inputs,
    *,
    numeric_format: str,
    tried: tuple[Candidate, ...] = (),
    input_name: str = INPUT_NAME,
) -> BuiltTier:
    """What ``files``, made of ``networks`` in their order, answer on the held-out data."""
    return BuiltTier(
        files=files,
        calibration=[logits_of_file(file, calibration, input_name) for file in files.values()],
        test=[logits_of_file(file, test, input_name) for file in files.values()],
        float32_test=[logits_of_file(file, test, input_name) for file in networks.values()],
        parameters=sum(count_parameters(onnx.load_from_string(file)) for file in networks.values()),
        numeric_format=numeric_format,
        tried=tried,
    )


def write_tiers(
    built: Mapping[Tier, BuiltTier],
    labels: Labelled,
    output: Path,
    *,
    signature: Signature,
    name: str,
    version: str,
    provenance: Provenance,
    progress: Callable[[str], None] = lambda _step: None,
) -> tuple[dict[str, TierReport], calibrate.CascadeResult]:
    """Writes a model folder for each tier; returns what became of them, and of them together.

    Raises:
        ArtifactError: a file cannot be written.
    """
    progress("calibrate and choose thresholds")
    weights = {
        tier: calibrate.fit_weights(model.calibration, labels.calibration)
        for tier, model in built.items()
    }
    temperatures = {
        tier: calibrate.fit_temperature(model.calibration, labels.calibration, weights[tier])
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
            labels.calibration,
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
            labels.test,
            accept_at=accept_at[tier],
            weights=weights[tier],
        )
        manifest = manifest_of(
            model,
            measured,
            labels.test,
            signature=signature,
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
    cascade = calibrate.cascade(
        scores_of_tiers([on_test[tier] for tier in USUAL_TIERS], labels.test),
        chosen.edge_accept_at,
        chosen.regional_accept_at,
    )
    return reports, cascade


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
    signature: Signature,
    name: str,
    version: str,
    tier: Tier,
    accept_at: float,
    temperature: float,
    weights: Sequence[float],
    provenance: Provenance,
) -> ModelManifest:
    """The manifest of one tier."""
    return ModelManifest(
        name=name,
        version=version,
        tier=tier,
        files={file: describe_file(contents) for file, contents in model.files.items()},
        members=members_of(model, test_labels, weights),
        inputs=signature.inputs,
        outputs=signature.outputs,
        labels=signature.labels,
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
    """What a tier comes to on the test part."""
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
