"""TensorFlow Lite files: edges, batches, damage, delegates, and the package that runs them."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.models import INPUTS, LABELS, OUTPUTS, WEIGHTS, manifest_of, model_folder
from fakes.tflite_files import (
    COARSE,
    STEPS,
    fixed_tflite,
    linear_tflite,
    mixing_tflite,
    per_axis_tflite,
    quantized_tflite,
)
from model_zoo.catalog import bundled_model, bundled_pictures, bundled_task
from model_zoo.tflite import main as convert_folder
from model_zoo.tflite_convert import convert
from runtime.adapters.artifacts import open_model, write_model
from runtime.adapters.engines import load_member, load_members
from runtime.adapters.litert_backend import LiteRtBackend
from runtime.adapters.litert_engine import MAX_INTERPRETERS, find_package
from runtime.adapters.litert_probe import probe
from runtime.core.quantization import dequantize, quantize
from runtime.errors import ArtifactError, BackendError
from runtime.manifest import Quantization
from runtime.messages import TensorSpec

EXAMPLE = np.array([[1, 2, 3], [0.5, -0.25, 4]], np.float32)
LOGITS: Any = EXAMPLE @ WEIGHTS


def close(found: Any, expected: Any, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=atol)


def loaded(contents: bytes, **options: Any) -> LiteRtBackend:
    return LiteRtBackend.load(
        contents, source="tiny.tflite", **({"expected": (INPUTS, OUTPUTS)} | options)
    )


def test_names_are_those_of_the_signature() -> None:
    backend = loaded(linear_tflite(), expected=None)

    assert (backend.inputs, backend.outputs) == (INPUTS, OUTPUTS)
    assert backend.report.engine.startswith("ai-edge-litert ")
    assert backend.report.taken == ("XNNPACK", "CPU")


def test_a_single_tensor_is_the_one_that_is_meant_whatever_its_name() -> None:
    backend = loaded(linear_tflite(names=("args_0", "output_0")))

    assert (backend.inputs, backend.outputs) == (INPUTS, OUTPUTS)
    close(backend.run({"x": EXAMPLE})["logits"], LOGITS)


def test_integers_at_the_edges_are_floats_for_callers() -> None:
    backend = loaded(quantized_tflite())

    outputs = backend.run({"x": EXAMPLE})["logits"]

    inside: Any = dequantize(quantize(EXAMPLE, STEPS), STEPS)
    np.testing.assert_array_equal(outputs, dequantize(quantize(inside @ WEIGHTS, COARSE), COARSE))
    assert outputs.dtype == np.float32
    close(outputs, LOGITS, atol=0.5)


@pytest.mark.parametrize("kind", ["INT8", "UINT8"])
def test_each_edge_may_be_quantized_alone(kind: Any) -> None:
    steps = Quantization(kind, 0.25, 3)

    for file in (quantized_tflite(steps, None), quantized_tflite(None, steps)):
        close(loaded(file).run({"x": EXAMPLE})["logits"], LOGITS, atol=0.5)


def test_what_the_manifest_says_of_it_too_must_agree() -> None:
    same = {"x": STEPS, "logits": COARSE}
    other = {"x": Quantization("INT8", STEPS.scale * 1.01, STEPS.zero_point)}

    assert loaded(quantized_tflite(), quantization=same).inputs == INPUTS
    with pytest.raises(ArtifactError, match=r"manifest quantizes 'x' by INT8 .* the file by INT8"):
        loaded(quantized_tflite(), quantization=other)
    with pytest.raises(ArtifactError, match="manifest says that 'x' is INT8 in the model, which"):
        loaded(linear_tflite(), quantization={"x": STEPS})


def test_callers_may_see_the_integers() -> None:
    inputs, outputs = (TensorSpec("x", "INT8", (-1, 3)),), (TensorSpec("logits", "INT8", (-1, 2)),)
    backend = loaded(quantized_tflite(), expected=(inputs, outputs))

    found = backend.run({"x": quantize(EXAMPLE, STEPS)})["logits"]

    assert found.dtype == np.int8
    close(dequantize(found, COARSE), LOGITS, atol=0.5)


def test_nan_is_not_quantized() -> None:
    with pytest.raises(BackendError, match="NaN"):
        loaded(quantized_tflite()).run({"x": np.full((1, 3), np.nan, np.float32)})


def test_a_scale_for_each_slice_of_an_input_is_refused() -> None:
    with pytest.raises(ArtifactError, match="a scale for each of 3 slices"):
        loaded(per_axis_tflite(), expected=None)


@pytest.mark.parametrize("file", [linear_tflite(batch=1), fixed_tflite()], ids=["free", "fixed"])
def test_a_file_for_a_batch_of_one_serves_any(file: bytes) -> None:
    backend = loaded(file)

    for batch in (1, 2, 7):
        inputs = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
        close(backend.run({"x": inputs})["logits"], inputs @ WEIGHTS)


def test_a_batch_that_would_mix_its_rows_is_run_row_by_row() -> None:
    specs = (TensorSpec("x", "FP32", (-1, 2)),)
    backend = loaded(mixing_tflite(), expected=(specs, OUTPUTS))
    inputs = np.array([[1, 2], [5, 6]], np.float32)

    close(backend.run({"x": inputs})["logits"], inputs * 2)


def test_interpreters_of_many_batch_sizes_are_not_all_kept() -> None:
    backend = loaded(linear_tflite())

    for batch in range(1, 3 * MAX_INTERPRETERS):
        inputs = np.ones((batch, 3), np.float32)
        close(backend.run({"x": inputs})["logits"], inputs @ WEIGHTS)

    assert backend._interpreters is not None
    assert len(backend._interpreters._ready) == MAX_INTERPRETERS


def test_inputs_that_disagree_or_are_empty_do_not_reach_the_engine() -> None:
    with pytest.raises(BackendError, match=r"must have shape \[-1, 3\], not \[0, 3\]"):
        loaded(linear_tflite()).run({"x": np.zeros((0, 3), np.float32)})


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((TensorSpec("x", "FP32", (-1, 4)),), OUTPUTS),
        ((TensorSpec("x", "INT32", (-1, 3)),), OUTPUTS),
        (INPUTS, (TensorSpec("logits", "FP32", (-1, 3)),)),
        ((*INPUTS, TensorSpec("more", "FP32", (-1, 3))), OUTPUTS),
    ],
    ids=["size", "type", "output", "more"],
)
def test_tensors_other_than_the_manifest_promises_are_refused(inputs: Any, outputs: Any) -> None:
    with pytest.raises(ArtifactError, match="the manifest promises the"):
        loaded(linear_tflite(), expected=(inputs, outputs))


@pytest.mark.parametrize(
    "contents",
    [b"", b"not a model", b"<html></html>", linear_tflite()[:100], linear_tflite()[:-200]],
    ids=["empty", "text", "page", "head", "truncated"],
)
def test_what_is_no_model_is_an_artifact_error(contents: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"tiny\.tflite is not a model that LiteRT can run"):
        loaded(contents)


def test_damaged_files_are_refused_or_run_and_crash_nothing() -> None:
    """In a process of its own, so that a crash is a failure and not the end of all tests."""
    code = "import test_litert_backend as t; t.load_damaged()"
    path = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    refused, ran = (int(number) for number in done.stdout.split())
    assert refused > 20
    assert ran > 20


def load_damaged(num_files: int = 120) -> None:
    """Loads files with flipped bits and cut ends, and prints what became of them."""
    picked, refused, ran = random.Random(1), 0, 0
    whole = (bundled_task() / "edge-tflite" / "edge.tflite").read_bytes()
    for number in range(num_files):
        damaged = bytearray(whole if number % 2 else quantized_tflite())
        for _ in range(picked.choice([1, 1, 2, 8])):
            damaged[picked.randrange(len(damaged))] ^= 1 << picked.randrange(8)
        if number % 5 == 0:
            del damaged[picked.randrange(len(damaged)) :]
        try:
            LiteRtBackend.load(bytes(damaged), source="damaged").close()
        except (ArtifactError, BackendError):
            refused += 1
        else:
            ran += 1
    sys.stdout.write(f"{refused} {ran}")


@pytest.mark.parametrize("delegate", ["edgetpu", "/no/such/libdelegate.so"])
def test_a_delegate_that_is_not_there_is_replaced_by_the_cpu_and_named(delegate: str) -> None:
    backend = loaded(linear_tflite(), delegate=delegate)

    close(backend.run({"x": EXAMPLE})["logits"], LOGITS)
    assert backend.report.wished == (delegate,)
    assert backend.report.taken == ("XNNPACK", "CPU")
    assert "is its library installed?" in str(backend.report)


def test_a_library_that_is_no_delegate_is_replaced_too() -> None:
    backend = loaded(linear_tflite(), delegate="libm.so.6")

    close(backend.run({"x": EXAMPLE})["logits"], LOGITS)
    assert [one.name for one in backend.report.skipped] == ["libm.so.6"]


def test_a_file_for_an_edge_tpu_says_what_is_missing() -> None:
    with pytest.raises(ArtifactError, match="compiled for an Edge TPU, which is not here: libedge"):
        loaded(b"garbage with an edgetpu-custom-op in it")


def test_without_a_delegate_plain_kernels_run_it() -> None:
    backend = loaded(linear_tflite(), delegate="none", threads=2)

    close(backend.run({"x": EXAMPLE})["logits"], LOGITS)
    assert backend.report.taken == ("CPU",)


def test_a_file_that_ends_the_process_that_tries_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ``tflite-runtime`` crashes; here a shell that kills itself stands for its process."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    probe(linear_tflite(), "good.tflite")
    probe(b"garbage", "refused elsewhere, with a reason")

    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ArtifactError, match=r"ended the process that tried it \(signal 11\)"):
        probe(b"", "bad.tflite")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(ArtifactError, match="could not be tried in a process"):
        probe(b"", "bad.tflite")


def test_the_newer_package_is_preferred() -> None:
    assert find_package().name == "ai-edge-litert"


def test_without_a_package_it_says_what_to_install() -> None:
    with pytest.raises(ArtifactError, match=r"not installed: pip install 'tierwise\[tflite\]'"):
        find_package(find=lambda _: None)


def test_the_old_package_beside_numpy_2_is_named_for_what_it_does() -> None:
    with pytest.raises(ArtifactError, match=r"tflite-runtime with numpy 2\.4 raises SystemError"):
        find_package("2.4", find=lambda name: name == "tflite_runtime" or None)


def test_a_model_for_a_newer_engine_is_refused(tmp_path: Path) -> None:
    files = {"tiny.tflite": linear_tflite()}
    write_model(tmp_path, manifest_of(files, min_runtime={"ai-edge-litert": "99.1"}), files)

    with pytest.raises(ArtifactError, match=r"needs ai-edge-litert 99\.1 or newer"):
        load_member(open_model(tmp_path), "tiny")


def test_members_of_two_engines_are_one_model(tmp_path: Path) -> None:
    from fakes.models import linear_model  # noqa: PLC0415

    model = model_folder(tmp_path, {"a.onnx": linear_model(), "b.tflite": linear_tflite()})

    found = [backend.run({"x": EXAMPLE})["logits"] for backend in load_members(model)]

    close(found[0], found[1])


def test_the_bundled_file_answers_as_the_onnx_file_does() -> None:
    pictures = bundled_pictures("test")
    pixels = pictures.pictures.astype(np.float32) / np.float32(255)
    (onnx,) = load_members(open_model(bundled_model("edge")))
    lite_model = open_model(bundled_task() / "edge-tflite")
    (lite,) = load_members(lite_model)
    onnx_manifest = open_model(bundled_model("edge")).manifest

    expected, found = (one.run({"image": pixels})["logits"].argmax(1) for one in (onnx, lite))

    assert (expected == found).mean() >= 0.995
    measured, of_onnx = lite_model.manifest.measured, onnx_manifest.measured
    assert measured is not None
    assert of_onnx is not None
    assert of_onnx.accuracy_float32 is not None
    assert (found == pictures.labels).mean() == pytest.approx(measured.accuracy)
    # int8 against float: what it costs, in the figures that both files share.
    assert of_onnx.accuracy_float32 - of_onnx.accuracy <= 0.005
    assert (lite_model.manifest.inputs, lite_model.manifest.labels) == (
        onnx_manifest.inputs,
        onnx_manifest.labels,
    )
    assert len(lite_model.manifest.labels) > len(LABELS)
    assert lite_model.manifest.size_bytes <= 150_000


def test_the_bundled_file_is_what_the_converter_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_folder(["--output", str(tmp_path)]) == 0

    shipped = bundled_task() / "edge-tflite" / "edge.tflite"
    assert (tmp_path / "edge.tflite").read_bytes() == shipped.read_bytes()
    assert "agrees with edge.onnx on 100" in capsys.readouterr().out


def test_a_graph_that_the_converter_does_not_know_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fakes.models import linear_model  # noqa: PLC0415

    with pytest.raises(ArtifactError, match="Flatten is no operator that can be converted"):
        convert(linear_model())
    model_folder(tmp_path / "float")
    assert convert_folder(["--source", str(tmp_path / "float"), "--output", str(tmp_path)]) == 1
    assert "error: " in capsys.readouterr().err
