"""`make test` tests what a user installs, not what happens to lie in the source tree."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from tierwise.doctor import PRODUCT

pytestmark = pytest.mark.skipif(
    "INSTALLED_TIERWISE" not in os.environ, reason="runs the sources; `make test` runs the wheel"
)


@pytest.mark.parametrize("name", PRODUCT)
def test_every_package_is_imported_from_the_installed_wheel(name: str, repository: Path) -> None:
    file = importlib.import_module(name).__file__

    assert file is not None
    assert "site-packages" in Path(file).parts
    assert Path(file).parent.parent != repository
