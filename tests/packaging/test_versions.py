"""One version, in one place; and a tree that names nobody's package index."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import tierwise

# In two parts, so that this file does not name them either.
INDEX_HOSTS = tuple(
    ".".join(parts)
    for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("debian", "org"))
)
TEXTS = {".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".txt", ".json", ".cfg", ".conf", ""}


def test_the_changelog_has_a_heading_for_this_version(repository: Path) -> None:
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8")

    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text, flags=re.MULTILINE)

    assert versions[0] == tierwise.__version__
    assert text.index("## [Unreleased]") < text.index(f"## [{tierwise.__version__}]")


def test_the_installed_distribution_has_this_version() -> None:
    try:
        installed = metadata.version("tierwise")
    except metadata.PackageNotFoundError:
        pytest.skip("not installed; `make test` installs it")

    assert installed == tierwise.__version__


def test_no_file_names_a_package_index(repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a checkout")
    files = [repository / name for name in listed.stdout.split("\0") if name]

    found = [
        f"{file}: {host}"
        for file in files
        if file.suffix in TEXTS and file.is_file()
        for host in INDEX_HOSTS
        if host in file.read_text(encoding="utf-8", errors="replace")
    ]

    assert found == []
