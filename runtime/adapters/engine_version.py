"""Whether an engine is new enough for a model."""

from __future__ import annotations

import contextlib
from importlib import metadata

from runtime.errors import ArtifactError
from runtime.manifest import ModelManifest

# Packages that run model files; a device has one of them at least.
PACKAGES = ("onnxruntime", "onnxruntime-gpu", "ai-edge-litert", "tflite-runtime")


def installed_engines() -> dict[str, str]:
    """Installed packages that run models, and their versions."""
    found = dict[str, str]()
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def check_version(manifest: ModelManifest, package: str, version: str, source: str) -> None:
    """Compares with the oldest version that the manifest names.

    Raises:
        ArtifactError: this one is older.
    """
    oldest = manifest.min_runtime.get(package, "0")
    if _numbers(version) < _numbers(oldest):
        raise ArtifactError(
            f"{source} needs {package} {oldest} or newer, "
            f"this is {version}; upgrade it, or use an older version of the model"
        )


def _numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version; enough to compare releases."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
