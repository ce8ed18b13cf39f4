"""Everything of a build that comes after training, on networks of one layer and made-up data."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnxruntime.quantization import CalibrationMethod

from fakes.models import linear_model
from model_zoo import build, bundle, calibrate
from model_zoo.bundle import HeldOut, write_bundle, write_pictures
from model_zoo.idx import PICTURE_SIDE, Split, to_pixels
from model_zoo.onnx_files import count_parameters, quantize_weights, serialize, strip
from model_zoo.options import BuildOptions
from model_zoo.predict import logits_of_file
from model_zoo.quantize import QuantizationChoice, quantize
from model_zoo.report import BundleReport, as_json, summary
from model_zoo.work_folder import claim
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.errors import StartError
from runtime.manifest import Provenance
from runtime.messages import USUAL_TIERS, Tier

NUM_CLASSES = 10
NUM_PIXELS = PICTURE_SIDE * PICTURE_SIDE
FAST = (QuantizationChoice("minmax", CalibrationMethod.MinMax, ("Gemm",)),)


def prototypes() -> npt.NDArray[np.float32]:
    """One made-up picture of each class, ``(10, 784)``."""
    random = np.random.default_rng(7)
    return random.random((NUM_CLASSES, NUM_PIXELS)).astype(np.float32)


def network(noise: float, seed: int) -> bytes:
    """A linear model that knows the prototypes more or less well."""
    random = np.random.default_rng(seed)
    known = prototypes() - 0.5 + noise * random.normal(size=(NUM_CLASSES, NUM_PIXELS))
    weights = (known.T * 0.1).astype(np.float32)
    return linear_model(weights, input_name="image", sides=(PICTURE_SIDE, PICTURE_SIDE))


def split(number: int, seed: int) -> Split:
    """Noisy pictures of the prototypes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, NUM_CLASSES, number)
    blurred = prototypes()[labels] * 128 + random.normal(60, 110, (number, NUM_PIXELS))
    pictures = blurred.clip(0, 255).astype(np.uint8)
    return Split(pictures.reshape(-1, PICTURE_SIDE, PICTURE_SIDE), labels.astype(np.int64))


DATA = HeldOut(calibration=split(600, 1), test=split(500, 2))
PROVENANCE = Provenance(data_set="made up", licence="CC0", seed=7, command="pytest")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundle")


@pytest.fixture(scope="module")
def report(folder: Path) -> BundleReport:
    networks = {
        Tier.EDGE: {"edge": network(0.9, 1)},
        Tier.REGIONAL: {"regional": network(0.4, 2)},
        Tier.CLOUD: {"one": network(0.3, 3), "two": network(0.3, 4)},
    }
    steps: list[str] = []
    result = write_bundle(
        networks,
        DATA,
        folder,
        name="made-up",
        version="3",
        provenance=PROVENANCE,
        progress=steps.append,
    )
    assert any(step.startswith("policy: gear") for step in steps)
    return result


@pytest.mark.parametrize("tier", USUAL_TIERS)
def test_every_tier_gets_a_folder_that_verifies_and_runs(
    folder: Path, report: BundleReport, tier: Tier
) -> None:
    model = open_model(folder / tier)

    backends = load_members(model)

    manifest = model.manifest
    assert (manifest.name, manifest.version, manifest.tier) == ("made-up", "3", tier)
    pixels = to_pixels(DATA.test.pictures)
    members = [backend.run({"image": pixels})["logits"].astype(np.float32) for backend in backends]
    shares = calibrate.probabilities_of(members, manifest.temperature)
    accuracy = calibrate.accuracy_of(shares, DATA.test.labels)
    assert manifest.measured is not None
    assert accuracy == pytest.approx(manifest.measured.accuracy)
    assert accuracy == pytest.approx(report.tiers[tier].accuracy)
    assert manifest.measured.num_examples == len(DATA.test.labels)
    assert manifest.measured.size_bytes == manifest.size_bytes


def test_manifests_say_where_the_model_comes_from(folder: Path, report: BundleReport) -> None:
    provenance = open_model(folder / "edge").manifest.provenance

    assert report.name == "made-up"
    assert provenance is not None
    assert (provenance.data_set, provenance.command) == ("made up", "pytest")
    assert provenance.numeric_format.startswith("int8 per channel, ranges by ")
    assert provenance.threshold_rule == calibrate.THRESHOLD_RULE


def test_the_cascade_is_close_to_the_ensemble_and_answers_below_it(report: BundleReport) -> None:
    cascade = report.cascade

    assert cascade.accuracy > report.tiers["cloud"].accuracy - 0.03
    assert cascade.cloud_share < 1
    assert report.tiers["edge"].accept_at == cascade.edge_accept_at
    assert report.tiers["cloud"].accept_at == 0


def test_calibration_does_not_make_confidence_worse(report: BundleReport) -> None:
    assert all(tier.ece_after < tier.ece_before + 0.03 for tier in report.tiers.values())


def test_pictures_are_written_without_pickle(folder: Path, report: BundleReport) -> None:
    with np.load(folder / "pictures" / "test.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["pictures"], DATA.test.pictures)
        np.testing.assert_array_equal(arrays["labels"], DATA.test.labels)

    assert report.size_bytes > (folder / "pictures" / "test.npz").stat().st_size


def test_the_same_pictures_are_the_same_bytes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", DATA)
    write_pictures(tmp_path / "b", DATA)

    first, second = (tmp_path / name / "test.npz" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_only_as_many_pictures_are_shipped_as_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "NUM_TEST_PICTURES", 10)

    write_pictures(tmp_path, DATA)

    with np.load(tmp_path / "test.npz", allow_pickle=False) as arrays:
        assert arrays["pictures"].shape == (10, PICTURE_SIDE, PICTURE_SIDE)


def test_the_report_reads_as_text_and_as_json(report: BundleReport) -> None:
    table = summary(report).splitlines()
    decoded = json.loads(as_json(report))

    assert [line.split()[0] for line in table[2:]] == [
        "edge",
        "regional",
        "cloud",
        "cascade",
        "policy",
    ]
    assert msgspec.convert(decoded, BundleReport) == report


def test_quantization_keeps_the_answers_and_shrinks_the_file() -> None:
    contents = network(0.1, 5)
    pixels = to_pixels(DATA.calibration.pictures)

    small = quantize(contents, pixels, DATA.calibration.labels, FAST)

    before, after = logits_of_file(contents, pixels), logits_of_file(small.model, pixels)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).mean() > 0.98
    assert len(small.model) < len(contents) / 2
    assert small.choice == "minmax"


def test_quantization_keeps_the_most_accurate_choice() -> None:
    pixels = to_pixels(DATA.calibration.pictures)

    quantized = quantize(network(0.4, 6), pixels, DATA.calibration.labels)

    figures = [(-tried.accuracy, tried.log_loss) for tried in quantized.tried]
    assert figures == sorted(figures)
    assert quantized.choice == quantized.tried[0].choice
    assert len(quantized.tried) > 1


def test_quantizing_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    pixels = to_pixels(DATA.calibration.pictures[:64])

    quantize(network(0.4, 6), pixels, DATA.calibration.labels[:64])

    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_int8_weights_quarter_the_file_and_hardly_change_the_answer() -> None:
    contents = network(0.2, 8)
    pixels = to_pixels(DATA.test.pictures[:50])

    small = serialize(strip(quantize_weights(onnx.load_from_string(contents))))

    assert len(small) < len(contents) * 0.4
    before, after = logits_of_file(contents, pixels), logits_of_file(small, pixels)
    np.testing.assert_allclose(after, before, atol=0.02 * float(np.abs(before).max()))


def test_stripping_keeps_the_outer_names_and_drops_the_rest() -> None:
    model = onnx.load_from_string(network(0.2, 8))
    model.doc_string = model.graph.doc_string = "long " * 100
    model.metadata_props.add(key="author", value="somebody")

    small = strip(model)

    assert small.ByteSize() < model.ByteSize() - 500
    assert [small.graph.input[0].name, small.graph.output[0].name] == ["image", "logits"]
    assert model.doc_string
    assert count_parameters(small) == count_parameters(model) == NUM_PIXELS * 10 + 10


def test_a_work_folder_belongs_to_one_build(tmp_path: Path) -> None:
    options = BuildOptions(seed=4, epochs_scale=0.5)

    claim(tmp_path, options)
    claim(tmp_path, options)
    claim(tmp_path, msgspec.structs.replace(options, version="2"))

    with pytest.raises(StartError, match=r'other options, \{"seed":4.*--work'):
        claim(tmp_path, BuildOptions(seed=5))


def test_networks_of_unknown_origin_are_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "edge.pt").touch()

    with pytest.raises(StartError, match="networks of an unknown build"):
        claim(tmp_path, BuildOptions())


def test_the_command_of_a_build_is_in_its_provenance() -> None:
    assert BuildOptions().command == "tierwise models build fashion --seed 20 --threads 2"
    assert BuildOptions(epochs_scale=0.1, limit=9).command.endswith("--epochs-scale 0.1 --limit 9")


@pytest.mark.parametrize(
    "arguments",
    [["chess"], ["fashion", "--epochs-scale", "0"], ["fashion", "--limit", "-1"], []],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)

    with pytest.raises(SystemExit):
        parser.parse_args(arguments)

    assert "error: " in capsys.readouterr().err


def test_without_pytorch_the_command_says_what_to_install() -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "fashion"]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "pip install 'tierwise[zoo]' (torch is missing)" in ended.stderr
    assert "Traceback" not in ended.stderr


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from model_zoo import build
sys.exit(build.main())
"""
