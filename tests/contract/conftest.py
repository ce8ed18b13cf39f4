"""Databases of the cloud tier's stores: every contract holds on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cloud_tier.telemetry.store import TelemetryStore
from fakes.postgres import Postgres, running_postgres
from fakes.telemetry import NOW_S


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'telemetry.sqlite'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as found:
        yield found


@pytest.fixture
def clock() -> list[float]:
    """Now, in s since 1970: a list, so that a test sets it."""
    return [NOW_S]


@pytest.fixture
def open_store(url: str, clock: list[float]) -> Iterator[Callable[..., TelemetryStore]]:
    """Opens stores of telemetry of a database, which are closed afterwards."""
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(
            TelemetryStore(url, wall_s=lambda: clock[0], **more)
        )


@pytest.fixture
def store(open_store: Callable[..., TelemetryStore]) -> TelemetryStore:
    """One of them."""
    return open_store()
