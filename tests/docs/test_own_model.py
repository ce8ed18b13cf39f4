"""own-model.md is walked through: two files of another project become a running hierarchy."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fakes.foreign import CLASSES, onnx_classifier, pictures, tflite_classifier, weights_of
from fakes.waiting import eventually_sync

DOCUMENT = Path(__file__).parents[2] / "docs" / "own-model.md"
PROGRAM = (sys.executable, "-m", "tierwise")
pytestmark = pytest.mark.timeout(180)


def _commands() -> list[list[str]]:
    (block,) = re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("tierwise ")]


def _files(folder: Path) -> None:
    (folder / "small.tflite").write_bytes(
        tflite_classifier(weights=weights_of("poor"), centred=True)
    )
    (folder / "big.onnx").write_bytes(
        onnx_classifier(shape=(1, 3, 8, 8), weights=_of_three_colours())
    )
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    x, y = pictures(4000)
    np.savez(folder / "parcels.npz", images=x, target=y)


def _of_three_colours() -> tuple[np.ndarray, np.ndarray]:
    matrix, bias = weights_of()
    return np.concatenate([matrix / 3] * 3), bias


def _is_whole(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text()))
    except ValueError:
        return False


def _run(folder: Path, words: list[str]) -> str:
    ran = subprocess.run(
        [*PROGRAM, *words], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_from_two_files_to_answers_in_fewer_than_ten_commands(tmp_path: Path) -> None:
    commands = _commands()
    assert len(commands) < 10
    *preparing, up, infer = commands
    _files(tmp_path)

    said = [_run(tmp_path, words) for words in preparing]

    assert "certified" in said[5]
    assert "expectation" not in said[5]
    with (tmp_path / "up.json").open("wb") as output, (tmp_path / "up.err").open("wb") as errors:
        program = subprocess.Popen(
            # Any free port, and the output that a program reads.
            [*PROGRAM, *up, "--port", "0", "--json"],
            cwd=tmp_path,
            stdout=output,
            stderr=errors,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    try:
        eventually_sync(lambda: program.poll() is not None or _is_whole(tmp_path / "up.json"), 90)
        assert program.poll() is None, (tmp_path / "up.err").read_text()
        told = json.loads((tmp_path / "up.json").read_text())
        assert set(told["tiers"]) == {"edge-1", "cloud-1"}
        answers = [
            json.loads(_run(tmp_path, [*infer, "--url", told["url"], "--json", *words]))
            for words in ([], ["--index", "8"], ["--index", "9"])
        ]
        assert {one["outcome"] for one in answers} <= {"answered", "degraded"}
        assert all(one["label_name"] in CLASSES for one in answers)
        assert all(one["guarantee"] == "certified" for one in answers)
        curled = subprocess.run(
            shlex.split(told["curl"]), capture_output=True, text=True, timeout=20, check=True
        )
        assert json.loads(curled.stdout)["model_name"] == "parcels"
    finally:
        program.send_signal(signal.SIGINT)
        code = program.wait(60)
    assert code == 0
