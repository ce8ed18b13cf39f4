"""What every test shares: markers by folder, no sockets in unit tests, hypothesis profiles."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest
import structlog

HERE = Path(__file__).parent
ROOT = HERE.parent

MARKER_OF_FOLDER = {
    "examples": "e2e",
    "unit": "unit",
    "properties": "unit",
    "contract": "integration",
    "golden": "integration",
    "integration": "integration",
    "docs": "e2e",
    "e2e": "e2e",
    "packaging": "e2e",
}

# A shared machine stalls now and then: no deadline for one example. CI repeats the same examples.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            folder = item.path.relative_to(HERE).parts[0]
            item.add_marker(MARKER_OF_FOLDER[folder])


@pytest.fixture(autouse=True)
def _no_sockets_in_unit_tests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("unit") is None:
        return

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a unit test opened a socket; it belongs in tests/integration")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)


@pytest.fixture(autouse=True)
def _restored_logs() -> Iterator[None]:
    """Gives every test structlog's defaults, whatever the one before set up."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def repository() -> Path:
    """Root of the source tree; only for tests of the tree itself."""
    return ROOT
