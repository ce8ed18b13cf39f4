"""The example of a smartwatch, from recordings to a hierarchy, with recordings made up here."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.example_scripts import EXAMPLES, done, hierarchy_of, load_script, tell
from model_zoo.idx import DataInvalidError

EXAMPLE = EXAMPLES / "sensor-activity"
PREPARE = load_script(EXAMPLE / "prepare.py")
STEPS = 600


def recordings(**changes: Any) -> bytes:
    """A file like that of the package: ten people, seven exercises, two arms."""
    random = np.random.default_rng(3)
    found = []
    people = np.repeat(np.arange(1, 11), 14)
    exercises = np.tile(np.repeat(np.arange(7), 2), 10)
    for exercise, person in zip(exercises, people, strict=True):
        phase = (0.02 + 0.012 * exercise + 0.001 * person) * np.arange(STEPS)
        wave = np.sin(2 * np.pi * phase)[:, None] * np.linspace(0.5, 1 + exercise / 7, 6)
        found.append(wave + random.normal(0, 0.6, (STEPS, 6)))
    whole = {"X": found, "y": exercises, "subject": people, "y_labels": np.array(PREPARE.CODES)}
    return packed({**whole, **changes})


def packed(value: object) -> bytes:
    """An array of one object, as numpy saves it."""
    file = io.BytesIO()
    np.save(file, np.array(None, object))
    head = file.getvalue()[:128]
    return head + pickle.dumps(np.array(value, object), protocol=2)


@pytest.mark.timeout(240)
def test_recordings_become_a_hierarchy_that_answers(tmp_path: Path) -> None:
    file = tmp_path / "recordings.npy"
    file.write_bytes(recordings())

    summary = hierarchy_of(EXAMPLE, tmp_path, "--file", file, max_loss=0.05, requests=120)

    assert summary["requests"] == 120
    assert summary["failed"] == 0
    assert sum(summary["answered_by"].values()) == 120
    assert summary["accuracy"]["cloud_only"] > 0.3, "seven exercises: one in seven is chance"

    # Without a policy the thresholds of the manifests decide.
    (tmp_path / "build/policy.json").unlink()
    said = done(tmp_path, EXAMPLE / "run.py", "--build", "build", "--requests", "20")
    assert "failed 0" in said
    assert "predicted" not in said


def test_nobody_whom_networks_learn_from_is_asked_about(tmp_path: Path) -> None:
    file = tmp_path / "recordings.npy"
    # Each person's series have a value of their own.
    drift = np.arange(STEPS)[:, None] * 1e-4 + np.zeros(6)
    people = np.repeat(np.arange(1, 11), 14)
    series = [drift + person + at * 1e-6 for at, person in enumerate(people)]
    file.write_bytes(recordings(X=series))

    done(tmp_path, EXAMPLE / "prepare.py", "--file", file)

    held = {
        name: set(np.rint(np.load(tmp_path / f"build/data/{name}.npz")["series"][:, 0, 0]))
        for name in ("train", "calibration", "certify", "test")
    }
    assert held["train"] == {1, 2, 3, 4, 5, 6}
    assert held["certify"] == held["test"] == held["calibration"] == {7, 8, 9, 10}


def test_the_same_seed_deals_the_same_windows(tmp_path: Path) -> None:
    file = tmp_path / "recordings.npy"
    file.write_bytes(recordings())

    for name in ("one", "two"):
        done(tmp_path, EXAMPLE / "prepare.py", "--file", file, "--output", name, "--reduced")

    for part in ("train", "calibration", "certify", "test"):
        one, two = ((tmp_path / name / f"{part}.npz").read_bytes() for name in ("one", "two"))
        assert one == two, part


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("called",))


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (b"", "cannot be read"),
        (recordings()[:5000], "cannot be read"),
        (packed({"X": []}), "lack subject, y, y_labels"),
        (packed([1, 2]), "cannot be read"),
        (recordings(y_labels=np.array(["A", "B"])), "are of"),
        (packed(Evil()), "is no array"),
    ],
    ids=["empty", "truncated", "keys", "list", "labels", "hostile"],
)
def test_what_is_no_recording_is_refused(contents: bytes, says: str) -> None:
    with pytest.raises(DataInvalidError, match=says):
        PREPARE.read_recordings(contents)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"X": [np.zeros((STEPS, 5))] * 140}, "not \\(steps, 6\\)"),
        ({"X": [np.full((STEPS, 6), np.nan)] * 140}, "missing or infinite"),
        ({"y": np.zeros(140, np.int64)}, "two classes"),
        ({"X": [np.zeros((40, 6))] * 140}, "two classes"),
    ],
    ids=["channels", "nan", "one class", "too short"],
)
def test_recordings_that_nothing_can_be_learned_from_are_refused(
    changes: dict[str, Any], says: str
) -> None:
    found = PREPARE.read_recordings(recordings(**changes))

    with pytest.raises(DataInvalidError, match=says):
        PREPARE.windows(found, {1, 2}, 50)


def test_another_package_than_the_known_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / PREPARE.WHEEL).write_bytes(b"something else")

    ran = tell(tmp_path, EXAMPLE / "prepare.py", "--wheel", tmp_path)

    assert ran.returncode == 1
    assert "has the sha256" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_the_real_recordings_reduced(tmp_path: Path) -> None:
    summary = hierarchy_of(EXAMPLE, tmp_path, max_loss=0.05, requests=200)

    assert summary["failed"] == 0
    assert summary["accuracy"]["cloud_only"] > 0.6
    assert summary["accuracy"]["cloud_only"] > summary["accuracy"]["edge_only"]
