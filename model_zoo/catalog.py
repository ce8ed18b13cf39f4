"""Finds the bundled task's models and pictures inside the installed package."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from model_zoo.idx import PICTURE_SIDE, Split
from runtime.errors import ArtifactError
from runtime.messages import Tier

LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
BUNDLED_TASK = "fashion"
REINSTALL = "Install the package again: pip install --force-reinstall tierwise"


def bundled_task() -> Path:
    """The folder that holds ``edge``, ``regional``, ``cloud`` and ``pictures``.

    Raises:
        ArtifactError: the installation has no such folder.
    """
    folder = resources.files("model_zoo") / "bundled" / BUNDLED_TASK
    if not isinstance(folder, Path) or not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder on disk. {REINSTALL}")
    return folder


def bundled_model(tier: Tier | str) -> Path:
    """The model folder of a tier; open it with ``runtime.adapters.artifacts.open_model``.

    Gateways of gateways have the model of gateways.

    Raises:
        ArtifactError: the installation has no such folder.
        ValueError: there is no such tier.
    """
    return bundled_task() / Tier(tier).kind


def bundled_policy() -> Path | None:
    """The policy that was fitted for the bundled models; None when none was built.

    Raises:
        ArtifactError: the installation has no folder of the task.
    """
    path = bundled_task() / "policy.json"
    return path if path.is_file() else None


def bundled_pictures(part: Literal["test", "calibration"] = "test") -> Split:
    """Labelled pictures ``(n, 28, 28)`` uint8 that no bundled network was trained on.

    ``test`` served for no choice of any kind; ``calibration`` for quantization and thresholds.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    path = bundled_task() / "pictures" / f"{part}.npz"
    try:
        # Given a path, numpy leaves the file open when it is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _checked(arrays, path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read: {error}. {REINSTALL}") from error


def _checked(arrays: Mapping[str, np.ndarray], path: Path) -> Split:
    pictures, labels = arrays["pictures"], arrays["labels"]
    if (
        pictures.dtype != np.uint8
        or pictures.shape[1:] != (PICTURE_SIDE, PICTURE_SIDE)
        or labels.shape != pictures.shape[:1]
    ):
        raise ArtifactError(f"{path} does not hold labelled pictures of 28 x 28. {REINSTALL}")
    return Split(pictures, labels.astype(np.int64))
