"""The models and pictures that the package ships are those that the manifests describe.

``python tests/integration/test_bundled_task.py`` writes the golden logits anew, after a rebuild.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_zoo import catalog
from model_zoo.calibrate import Float64s, accuracy_of, calibration_error, probabilities_of
from model_zoo.catalog import LABELS, bundled_model, bundled_pictures, bundled_task
from model_zoo.idx import to_pixels
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.errors import ArtifactError
from runtime.manifest import Measured, ModelManifest
from runtime.messages import USUAL_TIERS, Tier

# Three models see hundreds of pictures: seconds, and more of them where others work as well.
pytestmark = pytest.mark.timeout(90)

GOLDEN = Path(__file__).parents[1] / "golden" / "fashion_logits.json"
NUM_GOLDEN = 5
# Of int8 sums, CPUs differ by a rounding step here and there; of float32 sums, in the last digits.
GOLDEN_TOLERANCE = {Tier.EDGE: 0.5, Tier.REGIONAL: 0.5, Tier.CLOUD: 0.01}
NUM_MEASURED = 600
# Standard deviations of an accuracy measured on a sample; far outside means another model.
NUM_DEVIATIONS = 4
KILOBYTE = 1000
MAX_SIZES = {
    Tier.EDGE: 60 * KILOBYTE,
    Tier.REGIONAL: 1000 * KILOBYTE,
    Tier.CLOUD: 4000 * KILOBYTE,
}
MIN_ACCURACIES = {Tier.EDGE: 0.915, Tier.REGIONAL: 0.93, Tier.CLOUD: 0.945}
MAX_CALIBRATION_ERROR = 0.02


def logits_of(tier: Tier, pictures: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    """Each member's logits."""
    pixels: npt.NDArray[np.float32] = to_pixels(pictures)
    return [
        backend.run({"image": pixels})["logits"].astype(np.float32)
        for backend in load_members(open_model(bundled_model(tier)))
    ]


def write_golden() -> None:
    pictures = bundled_pictures().pictures[:NUM_GOLDEN]
    golden = {
        tier.value: [
            np.round(logits.astype(np.float64), 4).tolist() for logits in logits_of(tier, pictures)
        ]
        for tier in USUAL_TIERS
    }
    GOLDEN.write_text(json.dumps(golden) + "\n")


def manifest_of(tier: Tier) -> ModelManifest:
    return open_model(bundled_model(tier)).manifest


def measured_of(tier: Tier) -> Measured:
    measured = manifest_of(tier).measured
    assert measured is not None
    return measured


@pytest.fixture(scope="module", params=list(USUAL_TIERS))
def tier(request: pytest.FixtureRequest) -> Tier:
    return Tier(request.param)


@pytest.fixture(scope="module")
def probabilities(tier: Tier) -> Float64s:
    pictures = bundled_pictures().pictures[:NUM_MEASURED]
    manifest = manifest_of(tier)
    weights = [member.weight for member in manifest.members]
    return probabilities_of(logits_of(tier, pictures), manifest.temperature, weights)


def test_every_file_is_the_one_of_its_manifest(tier: Tier) -> None:
    model = open_model(bundled_model(tier))

    on_disk = {path.name for path in model.folder.iterdir()}
    assert on_disk == {"manifest.json", *model.manifest.files}
    assert model.manifest.tier == tier
    assert model.manifest.name == "fashion"


def test_all_tiers_are_of_one_version() -> None:
    assert len({manifest_of(tier).version for tier in USUAL_TIERS}) == 1


def test_files_are_small(tier: Tier) -> None:
    assert manifest_of(tier).size_bytes <= MAX_SIZES[tier]


def test_the_whole_task_is_small_enough_for_a_package() -> None:
    sizes = [path.stat().st_size for path in bundled_task().rglob("*") if path.is_file()]

    assert sum(sizes) < 7000 * KILOBYTE


def test_the_measured_figures_reach_the_goals(tier: Tier) -> None:
    measured = measured_of(tier)

    assert measured.accuracy >= MIN_ACCURACIES[tier]
    assert measured.num_examples == 10_000
    assert measured.ece_after <= MAX_CALIBRATION_ERROR
    assert measured.size_bytes == manifest_of(tier).size_bytes


def test_accuracy_on_shipped_pictures_is_that_of_the_manifest(
    tier: Tier, probabilities: Float64s
) -> None:
    stated = measured_of(tier).accuracy
    allowed = NUM_DEVIATIONS * float(np.sqrt(stated * (1 - stated) / NUM_MEASURED))

    found = accuracy_of(probabilities, bundled_pictures().labels[:NUM_MEASURED])

    assert abs(found - stated) < allowed


def test_confidence_is_calibrated_on_shipped_pictures(probabilities: Float64s) -> None:
    labels = bundled_pictures().labels[:NUM_MEASURED]

    # A sample of this size has an error of a few points even when calibration is perfect.
    assert calibration_error(probabilities, labels) < 0.06


def test_logits_are_those_of_the_golden_file(tier: Tier) -> None:
    pictures = bundled_pictures().pictures[:NUM_GOLDEN]
    golden = json.loads(GOLDEN.read_text())[tier]

    np.testing.assert_allclose(logits_of(tier, pictures), golden, atol=GOLDEN_TOLERANCE[tier])


def test_a_picture_gets_the_same_answer_alone_and_in_a_batch(tier: Tier) -> None:
    pictures = bundled_pictures().pictures[:8]

    together = logits_of(tier, pictures)
    alone = [logits_of(tier, pictures[index : index + 1]) for index in range(8)]

    for member, logits in enumerate(together):
        np.testing.assert_allclose(
            np.concatenate([one[member] for one in alone]), logits, atol=0.01
        )


def test_labels_are_the_ten_of_the_task(tier: Tier) -> None:
    assert manifest_of(tier).labels == LABELS
    assert len(LABELS) == 10


def test_only_the_lower_tiers_hand_anything_up() -> None:
    assert 0 < manifest_of(Tier.EDGE).accept_at < 1
    assert 0 < manifest_of(Tier.REGIONAL).accept_at < 1
    assert manifest_of(Tier.CLOUD).accept_at == 0


def test_manifests_say_where_the_models_come_from(tier: Tier) -> None:
    provenance = manifest_of(tier).provenance

    assert provenance is not None
    assert (provenance.data_set, provenance.licence) == ("Fashion-MNIST", "MIT")
    assert provenance.command.startswith("tierwise models build fashion --seed 20")
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= provenance.libraries.keys()
    assert provenance.cpu
    assert provenance.rebuild_tolerance > 0


@pytest.mark.parametrize(("part", "at_least"), [("test", 4000), ("calibration", 2000)])
def test_pictures_of_all_labels_are_shipped(part: str, at_least: int) -> None:
    pictures, labels = bundled_pictures(part)  # type: ignore[arg-type]

    assert pictures.shape == (len(labels), 28, 28)
    assert pictures.dtype == np.uint8
    assert len(labels) >= at_least
    assert np.bincount(labels, minlength=10).min() > len(labels) / 10 * 0.8


def test_test_and_calibration_pictures_are_different() -> None:
    test, calibration = bundled_pictures("test"), bundled_pictures("calibration")

    shared = {p.tobytes() for p in test.pictures} & {p.tobytes() for p in calibration.pictures}

    assert not shared


def test_the_licence_of_the_pictures_is_beside_them() -> None:
    assert "Zalando" in (bundled_task() / "pictures" / "LICENSE.txt").read_text()


def test_an_installation_without_models_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)

    with pytest.raises(ArtifactError, match="pip install --force-reinstall tierwise"):
        bundled_model(Tier.EDGE)


@pytest.mark.parametrize("contents", [b"", b"no archive", b"PK\x03\x04 and nothing more"])
def test_damaged_pictures_are_an_artifact_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: bytes
) -> None:
    monkeypatch.setattr(catalog, "bundled_task", lambda: tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "test.npz").write_bytes(contents)

    with pytest.raises(ArtifactError, match=r"test\.npz cannot be read: .*reinstall"):
        bundled_pictures()


@pytest.mark.parametrize(
    "pictures",
    [np.zeros((2, 28, 28)), np.zeros((2, 14, 28), np.uint8), np.zeros((3, 28, 28), np.uint8)],
    ids=["type", "size", "number"],
)
def test_an_archive_of_something_else_is_an_artifact_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: npt.NDArray[np.generic]
) -> None:
    monkeypatch.setattr(catalog, "bundled_task", lambda: tmp_path)
    (tmp_path / "pictures").mkdir()
    np.savez(tmp_path / "pictures" / "test.npz", pictures=pictures, labels=np.zeros(2, np.uint8))

    with pytest.raises(ArtifactError, match="does not hold labelled pictures"):
        bundled_pictures()


def test_there_is_no_fourth_tier() -> None:
    with pytest.raises(ValueError, match="basement"):
        bundled_model("basement")


if __name__ == "__main__":
    write_golden()
