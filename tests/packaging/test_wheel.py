"""What the wheel holds: what is on the list, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path, PurePosixPath

import pytest

import tierwise
from hardware_profiles.registry import load_profiles
from tierwise.doctor import PRODUCT
from tierwise.new_task import FILES

SUFFIXES = {
    ".py",
    ".typed",
    ".json",
    ".onnx",
    ".tflite",
    ".npz",
    ".txt",
    ".toml",
    ".mjs",
    ".css",
    ".html",
    ".svg",
    ".md",
}
MAX_BYTES = 16 * 1024 * 1024
MODELS = "model_zoo/bundled/fashion"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    given = os.environ.get("WHEEL_UNDER_TEST")
    return zipfile.ZipFile(given or built(tmp_path_factory.mktemp("dist")))


def built(folder: Path, kind: str = "wheel") -> Path:
    pytest.importorskip("hatchling", reason="`make test` brings a wheel; else hatchling builds one")
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=repository, check=True, capture_output=True, timeout=60)
    (path,) = folder.iterdir()
    return path


def test_a_source_distribution_has_what_its_makefile_and_tests_read(tmp_path: Path) -> None:
    with tarfile.open(built(tmp_path, "sdist")) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    assert {"scripts/test.sh", "deploy/install.sh", "deploy/check/images.py", "tests"} <= held | {
        PurePosixPath(name).parts[0] for name in held if name
    }
    assert [name for name in held if name.startswith("deploy/compose/secrets")] == []


def test_it_holds_our_packages_and_its_metadata_only(wheel: zipfile.ZipFile) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel.namelist()}

    name = f"tierwise-{tierwise.__version__}"
    assert tops == {*PRODUCT, f"{name}.dist-info", f"{name}.data"}
    beside = [one for one in wheel.namelist() if one.startswith(f"{name}.data/")]
    assert beside == [f"{name}.data/data/share/man/man1/tierwise.1"]


def test_it_holds_known_kinds_of_files_only(wheel: zipfile.ZipFile) -> None:
    ours = [name for name in wheel.namelist() if name.partition("/")[0] in PRODUCT]

    assert [name for name in ours if PurePosixPath(name).suffix not in SUFFIXES] == []


def test_no_test_and_no_cache_is_in_it(wheel: zipfile.ZipFile) -> None:
    unwanted = {"tests", "__pycache__", "conftest.py", "benchmarks"}

    assert [name for name in wheel.namelist() if unwanted & set(PurePosixPath(name).parts)] == []


@pytest.mark.parametrize("package", PRODUCT)
def test_every_package_says_that_it_is_typed(wheel: zipfile.ZipFile, package: str) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


@pytest.mark.parametrize("tier", ["edge", "regional", "cloud"])
def test_models_come_with_every_file_of_their_manifest(wheel: zipfile.ZipFile, tier: str) -> None:
    manifest = json.loads(wheel.read(f"{MODELS}/{tier}/manifest.json"))

    missing = set(manifest["files"]) - {
        PurePosixPath(name).name for name in wheel.namelist() if name.startswith(f"{MODELS}/{tier}")
    }
    assert missing == set()


def test_hardware_profiles_are_in_it(wheel: zipfile.ZipFile) -> None:
    held = {PurePosixPath(name).stem for name in wheel.namelist() if name.endswith(".toml")}

    assert held == load_profiles().keys()


def test_templates_of_new_tasks_are_in_it(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())

    assert {f"tierwise/templates/task/{name}" for name in FILES.values()} <= names


def test_licences_are_in_it(wheel: zipfile.ZipFile) -> None:
    licence = wheel.read(f"tierwise-{tierwise.__version__}.dist-info/licenses/LICENSE")

    assert b"Apache License" in licence
    assert f"{MODELS}/pictures/LICENSE.txt" in wheel.namelist()


def test_it_brings_the_command(wheel: zipfile.ZipFile) -> None:
    points = wheel.read(f"tierwise-{tierwise.__version__}.dist-info/entry_points.txt").decode()

    assert "tierwise = tierwise.cli:main" in points


def test_the_core_install_stays_small(wheel: zipfile.ZipFile) -> None:
    metadata = BytesParser().parsebytes(
        wheel.read(f"tierwise-{tierwise.__version__}.dist-info/METADATA")
    )

    core = {
        requirement.split(";")[0].strip("=<>,.0123456789 ")
        for requirement in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in requirement
    }
    assert core == {
        "aiohttp", "cryptography", "msgspec", "numpy", "onnxruntime", "paho-mqtt",
        "prometheus-client", "structlog", "tuf", "zstandard",
    }  # fmt: skip


def test_it_is_small(wheel: zipfile.ZipFile) -> None:
    assert sum(info.compress_size for info in wheel.infolist()) < MAX_BYTES
