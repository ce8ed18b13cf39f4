"""Makes a task's shipped folder from float32 ONNX files and data (numpy, onnx, ONNX Runtime).

Quantize, calibrate, choose thresholds, measure on the whole test set, write manifests and pictures,
fit the policy. The test set serves for the figures in the manifests, and its second half, which is
not shipped, for the policy's certificate.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model_zoo.catalog import LABELS
from model_zoo.idx import PICTURE_SIDE, Split, to_pixels
from model_zoo.onnx_files import INPUT_NAME, OUTPUT_NAME
from model_zoo.policies.bundled import write_bundled_policy
from model_zoo.report import BundleReport
from model_zoo.tier_folders import BuiltTier, Labelled, Signature, make_small, write_tiers
from runtime.adapters.artifacts import write_artifact
from runtime.manifest import Provenance
from runtime.messages import USUAL_TIERS, TensorSpec, Tier

NUM_TEST_PICTURES = 5_000
NUM_CALIBRATION_PICTURES = 2_000
INPUTS = (TensorSpec(INPUT_NAME, "FP32", (-1, PICTURE_SIDE, PICTURE_SIDE)),)
OUTPUTS = (TensorSpec(OUTPUT_NAME, "FP32", (-1, len(LABELS))),)
SIGNATURE = Signature(INPUTS, OUTPUTS, LABELS)


class HeldOut(NamedTuple):
    """Pictures that no network was trained on."""

    calibration: Split
    test: Split


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
    reports, cascade = write_tiers(
        built,
        Labelled(data.calibration.labels, data.test.labels),
        output,
        signature=SIGNATURE,
        name=name,
        version=version,
        provenance=provenance,
        progress=progress,
    )
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
        cascade=cascade,
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
    return make_small(
        networks,
        to_pixels(data.calibration.pictures),
        data.calibration.labels,
        to_pixels(data.test.pictures),
        is_int8=is_int8,
    )
