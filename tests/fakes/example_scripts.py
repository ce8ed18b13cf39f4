"""Runs the scripts of ``examples/`` and the commands between them, each as a user does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


def load_script(path: Path) -> ModuleType:
    """The script as a module, to call its functions."""
    spec = importlib.util.spec_from_file_location(f"example_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tell(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A Python program in ``folder``, whatever comes of it."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "HOME": str(folder)},
    )


def done(folder: Path, *words: object) -> str:
    """What a Python program prints, which must end well."""
    ran = tell(folder, *words)
    assert ran.returncode == 0, f"{words}: {ran.stderr or ran.stdout}"
    return ran.stdout


def hierarchy_of(
    example: Path, folder: Path, *prepare: object, max_loss: float, requests: int
) -> dict[str, Any]:
    """The nine steps of an example in ``folder``, reduced; what its trial prints."""
    done(folder, example / "prepare.py", "--reduced", *prepare)
    done(folder, example / "train.py", "--reduced")
    for part in ("calibration", "certify", "test"):
        models = [f"--model={tier}=build/models/{tier}" for tier in ("edge", "regional", "cloud")]
        done(
            folder, "-m", "tierwise", "policy", "collect", *models,
            "--data", f"build/data/{part}.npz", "--output", f"build/{part}.npz",
        )  # fmt: skip
    done(
        folder, "-m", "tierwise", "policy", "fit", "--train", "build/calibration.npz",
        "--cal", "build/certify.npz", "--max-loss", max_loss, "--output", "build/policy.json",
    )  # fmt: skip
    judged = ("policy", "eval", "--dataset", "build/test.npz", "--policy", "build/policy.json")
    done(folder, "-m", "tierwise", *judged)
    said = done(
        folder, example / "run.py", "--json", "--build", "build", "--requests", requests,
        "--state", folder / "state",
    )  # fmt: skip
    summary: dict[str, Any] = json.loads(said)
    return summary
