"""``tierwise models import``: classifiers of features, fed with what a microphone gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fakes.foreign import CLASSES, onnx_classifier, tflite_classifier
from fakes.sounds import BANDS, LENGTH, LOG_MEL, NUM_FRAMES, log_mel, recordings, sound_weights
from model_zoo.policies.collect import accuracy_of, read_examples
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.binding_signals import Frames, Log, Mel, Spectrum, Windowed
from runtime.core.confidence import softmax
from runtime.core.preprocessing import prepare
from runtime.errors import ArtifactError
from tierwise.cli import main

LABELS = ",".join(CLASSES)
GOOD = 0.85
SCALED = ("--scale", "32768", "--log-mel", LOG_MEL)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    waves, labels = recordings()
    np.savez("data.npz", x=waves, y=labels)


def _onnx(shape: tuple[int | str, ...] = ("N", 1, NUM_FRAMES, BANDS)) -> bytes:
    return onnx_classifier(weights=sound_weights(), shape=shape)


def _tflite() -> bytes:
    return tflite_classifier(weights=sound_weights(), example=(NUM_FRAMES, BANDS, 1))


def _import(contents: bytes, *words: str, file: str = "model.onnx", output: str = "out") -> int:
    Path(file).write_bytes(contents)
    first = ["models", "import", file, "--tier", "edge", "--name", "tones", "--output", output]
    return main([*first, "--labels", LABELS, *words])


def test_the_fake_features_are_those_of_the_steps() -> None:
    waves, _ = recordings(3)
    steps = (Frames(200, 100), Windowed(axis=1), Spectrum(256, axis=1), Mel(12, 8000.0), Log())

    found = prepare(waves / np.float32(32768), steps, "FP32")

    np.testing.assert_allclose(found, log_mel(waves), atol=1e-4)


def test_onnx_and_tflite_answer_recordings_alike() -> None:
    assert _import(_onnx(), "--data", "data.npz", *SCALED) == 0
    assert _import(
        _tflite(), "--data", "data.npz", *SCALED, file="model.tflite", output="lite"
    ) == 0  # fmt: skip

    assert accuracy_of(Path("out"), read_examples("data.npz")) > GOOD
    waves, _ = recordings(20, seed=9)
    answers = []
    for folder in ("out", "lite"):
        model = open_model(Path(folder))
        (backend,) = load_members(model)
        answers.append(softmax(backend.run({"input": waves})["logits"]))
        spec = model.manifest.inputs[0]
        assert (spec.datatype, spec.shape) == ("INT16", (-1, LENGTH))
        backend.close()
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    np.testing.assert_allclose(answers[0], _expected(waves), atol=1e-4)


def _expected(waves: np.ndarray) -> np.ndarray:
    matrix, bias = sound_weights()
    return softmax((log_mel(waves).reshape(len(waves), -1) @ matrix + bias).astype(np.float32))


@pytest.mark.parametrize(
    "shape", [("N", NUM_FRAMES, BANDS), (1, BANDS, NUM_FRAMES), ("N", NUM_FRAMES * BANDS)]
)
def test_features_are_laid_out_as_the_file_wants_them(shape: tuple[int | str, ...]) -> None:
    matrix, bias = sound_weights()
    if shape[1] == BANDS:
        matrix = matrix.reshape(NUM_FRAMES, BANDS, -1).transpose(1, 0, 2).reshape(len(matrix), -1)

    code = _import(
        onnx_classifier(weights=(matrix, bias), shape=shape), "--data", "data.npz", *SCALED
    )

    assert code == 0
    assert accuracy_of(Path("out"), read_examples("data.npz")) > GOOD


def test_the_preset_is_spelled_out_and_says_the_same_from_a_file() -> None:
    assert _import(_onnx(("N", NUM_FRAMES, BANDS)), "--data", "data.npz", *SCALED) == 0
    written = json.loads(Path("out/manifest.json").read_text())
    steps = written["members"][0]["inputs"]["input"]["steps"]
    Path("steps.json").write_text(json.dumps(steps))

    code = _import(
        _onnx(("N", NUM_FRAMES, BANDS)), "--data", "data.npz", "--steps", "steps.json", output="two"
    )

    assert code == 0
    assert [one["step"] for one in steps] == [
        "normalise", "frames", "window", "spectrum", "mel", "log"
    ]  # fmt: skip
    again = json.loads(Path("two/manifest.json").read_text())
    assert again["members"][0]["inputs"]["input"]["steps"] == steps
    assert "--steps steps.json" in again["provenance"]["command"]


def test_without_data_the_shape_of_a_recording_is_told() -> None:
    code = _import(
        _onnx(), "--input-shape", f"{LENGTH},1", "--input-type", "INT16", *SCALED,
        "--normalise=-4,3",
    )  # fmt: skip

    assert code == 0
    (bind,) = open_model(Path("out")).manifest.members[0].inputs.values()
    assert [type(one).__name__ for one in bind.steps][:2] == ["Reshape", "Normalise"]
    assert bind.steps[-1].mean == (-4.0,)  # type: ignore[union-attr]


def test_means_for_each_band_come_after_the_logarithm() -> None:
    means = ":".join(["-4"] * BANDS)
    words = ("--input-shape", str(LENGTH), "--log-mel", LOG_MEL)

    code = _import(_onnx(), *words, f"--normalise={means},{':'.join(['3'] * BANDS)}")

    assert code == 0
    (bind,) = open_model(Path("out")).manifest.members[0].inputs.values()
    assert len(bind.steps[-1].std) == BANDS  # type: ignore[union-attr]


BROKEN: dict[str, tuple[tuple[str, ...], str]] = {
    "a hop of 0": (("--log-mel", "rate=8000,frame=200,hop=0,bands=12"), "hop"),
    "a frame below 0": (("--log-mel", "rate=8000,frame=-1,hop=1,bands=12"), "length"),
    "too many bands": (("--log-mel", "rate=8000,frame=200,hop=100,bands=300"), "too many"),
    "over half the rate": (("--log-mel", f"{LOG_MEL},high=5000"), "half the sample rate"),
    "a short transform": (("--log-mel", f"{LOG_MEL},fft=128"), "do not fit"),
    "a prime transform": (("--log-mel", f"{LOG_MEL},fft=1022"), "prime factor"),
    "an unknown word": (("--log-mel", f"{LOG_MEL},bins=4"), "bins"),
    "a word without a value": (("--log-mel", "rate"), "KEY=VALUE"),
    "a word twice": (("--log-mel", f"{LOG_MEL},rate=16000"), "KEY=VALUE"),
    "a missing word": (("--log-mel", "rate=8000"), "frame"),
    "no number": (("--log-mel", "rate=fast,frame=1,hop=1,bands=1"), "such as"),
    "another size": (("--log-mel", "rate=8000,frame=200,hop=200,bands=12"), "correct them"),
    "a frame longer than the recording": (
        ("--log-mel", "rate=8000,frame=2000,hop=100,bands=12"),
        "shorter than a frame",
    ),
    "a picture of it": (("--log-mel", LOG_MEL, "--resize", "8x8"), "--resize"),
    "both": (("--log-mel", LOG_MEL, "--steps", "steps.json"), "--steps cannot"),
    "steps and a scale": (("--steps", "steps.json", "--scale", "2"), "--scale"),
    "steps that lead elsewhere": (("--steps", "steps.json"), "correct them"),
    "no file of steps": (("--steps", "nowhere.json"), "No such file"),
    "no list of steps": (("--steps", "list.json"), "no list of steps"),
    "an empty list": (("--steps", "empty.json"), "empty"),
    "an unknown step": (("--steps", "unknown.json"), "wavelet"),
    "a huge output": (("--steps", "huge.json"), "numbers an example"),
    "means for no axis": (("--log-mel", LOG_MEL, "--normalise", "1:2,1:2"), "no axis"),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_what_is_impossible_is_told_and_nothing_is_written(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, because = BROKEN[kind]
    Path("steps.json").write_text('[{"step": "window"}]')
    Path("list.json").write_text('{"step": "window"}')
    Path("empty.json").write_text("[]")
    Path("unknown.json").write_text('[{"step": "wavelet"}]')
    Path("huge.json").write_text(
        '[{"step": "frames", "length": 1100, "hop": 1},'
        ' {"step": "frames", "length": 1, "hop": 1}, {"step": "repeat", "times": 64, "axis": 1},'
        ' {"step": "frames", "length": 1100, "hop": 1, "axis": 2},'
        ' {"step": "frames", "length": 1, "hop": 1},'
        ' {"step": "frames", "length": 16000000, "hop": 1, "tail": "pad"}]'
    )

    code = _import(_onnx(), "--data", "data.npz", *words)

    told = capsys.readouterr().err
    assert code in {1, 2, 3}, told
    assert because in told
    assert "unexpected" not in told
    assert not Path("out").exists()


def test_steps_need_to_know_what_callers_send(capsys: pytest.CaptureFixture[str]) -> None:
    assert _import(_onnx(), "--log-mel", LOG_MEL) != 0

    assert "--input-shape" in capsys.readouterr().err


def test_pictures_have_no_log_mel(capsys: pytest.CaptureFixture[str]) -> None:
    assert _import(_onnx(), "--log-mel", LOG_MEL, "--input-shape", "8,8,3") != 0

    assert "a series" in capsys.readouterr().err


def test_a_hostile_manifest_is_refused_before_it_allocates() -> None:
    assert _import(_onnx(), "--data", "data.npz", *SCALED) == 0
    path = Path("out/manifest.json")
    manifest = json.loads(path.read_text())
    bind = manifest["members"][0]["inputs"]["input"]
    more = [{"length": 1000, "hop": 1}, {"length": 500, "hop": 1, "axis": 1}]
    bind["steps"][1:1] = [{"step": "frames", **one} for one in more]
    path.write_text(json.dumps(manifest))

    with pytest.raises(ArtifactError, match="numbers an example"):
        load_members(open_model(Path("out")))


def test_a_file_of_steps_of_limited_size(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("steps.json").open("wb") as file:
        file.truncate((16 << 20) + 1)

    assert _import(_onnx(), "--steps", "steps.json") != 0

    assert "over 16777216 bytes" in capsys.readouterr().err
