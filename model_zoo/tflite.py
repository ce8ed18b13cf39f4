"""Writes the TensorFlow Lite variant of a device's model, and compares it with the ONNX file.

    python -m model_zoo.tflite [--source FOLDER] [--output FOLDER]

It needs the extras `tflite` and `test` (onnx, flatbuffers), and neither PyTorch nor TensorFlow.
"""

from __future__ import annotations

import argparse
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from model_zoo import calibrate
from model_zoo.catalog import bundled_model, bundled_pictures
from model_zoo.tflite_convert import convert
from runtime.adapters.artifacts import describe_file, open_model, write_model
from runtime.adapters.engines import load_members
from runtime.adapters.litert_backend import LiteRtBackend
from runtime.errors import ArtifactError
from runtime.manifest import Measured, Member, ModelManifest, Provenance
from runtime.messages import Tier

MIN_AGREEMENT = 0.995
OLDEST_LITERT = "1.3"
Array = npt.NDArray[Any]


def main(arguments: list[str] | None = None) -> int:
    """Writes the model folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m model_zoo.tflite", description=__doc__)
    parser.add_argument(
        "--source", type=Path, default=bundled_model(Tier.EDGE), metavar="FOLDER",
        help="model folder with one int8 ONNX file (default: the bundled one of devices)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("models/edge-tflite"), metavar="FOLDER",
        help="where the folder with the TensorFlow Lite file goes (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(build(options.source, options.output) + "\n")
    except ArtifactError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def build(source: Path, output: Path) -> str:
    """Converts a model folder, compares both files on the bundled test pictures, and writes it.

    Returns what a person should know.

    Raises:
        ArtifactError: it cannot be converted, or the two do not answer alike.
    """
    model = open_model(source)
    manifest = model.manifest
    (name,) = manifest.member_files
    contents = convert(model.read_verified(name))
    test = bundled_pictures("test")
    pixels = test.pictures.astype(np.float32) / np.float32(255)
    (image,), (logits,) = manifest.inputs, manifest.outputs
    before: Array = load_members(model)[0].run({image.name: pixels})[logits.name]
    new: Array = LiteRtBackend.load(
        contents, source=name, expected=(manifest.inputs, manifest.outputs)
    ).run({image.name: pixels})[logits.name]
    agreement = float((before.argmax(1) == new.argmax(1)).mean())
    if agreement < MIN_AGREEMENT:
        raise ArtifactError(f"the two agree on {agreement:.2%} only, less than {MIN_AGREEMENT:.1%}")
    file = f"{Path(name).stem}.tflite"
    written = msgspec.structs.replace(
        manifest,
        files={file: describe_file(contents)},
        members=(Member(manifest.members[0].name, file),),
        min_runtime={"ai-edge-litert": OLDEST_LITERT},
        measured=_measured(manifest, new, test.labels, len(contents)),
        provenance=_provenance(manifest, name),
    )
    write_model(output, written, {file: contents})
    return (
        f"{output / file}: {len(contents)} bytes; agrees with {name} on {agreement:.2%} of "
        f"{len(test.labels)} pictures, logits within {np.abs(before - new).max():.2g}"
    )


def _measured(
    manifest: ModelManifest, logits: Array, labels: calibrate.Labels, size_bytes: int
) -> Measured:
    raw = calibrate.probabilities_of([logits], weights=[1.0])
    calibrated = calibrate.probabilities_of([logits], manifest.temperature, weights=[1.0])
    confidence, correct = calibrate.scores_of(calibrated, labels)
    stands = confidence >= manifest.accept_at
    return Measured(
        accuracy=float(correct.mean()),
        num_examples=len(labels),
        ece_before=calibrate.calibration_error(raw, labels),
        ece_after=calibrate.calibration_error(calibrated, labels),
        parameters=manifest.measured.parameters if manifest.measured else 1,
        size_bytes=size_bytes,
        answered_share=float(stands.mean()),
        answered_accuracy=float(correct[stands].mean()) if stands.any() else None,
    )


def _provenance(manifest: ModelManifest, name: str) -> Provenance | None:
    if manifest.provenance is None:
        return None
    return msgspec.structs.replace(
        manifest.provenance,
        command=f"{manifest.provenance.command}; python -m model_zoo.tflite",
        libraries=manifest.provenance.libraries
        | {one: metadata.version(one) for one in ("ai-edge-litert", "flatbuffers")},
        numeric_format=f"int8 per channel: the integers of {name}",
        rebuild_tolerance=0.0,
    )


if __name__ == "__main__":
    sys.exit(main())
