"""Hierarchies of real processes over a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.async_api import Browser

from fakes.browser import chromium
from fakes.programs import Asker, Hierarchy


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with Asker() as asker:
        yield asker


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium; tests that want it are skipped where it is not, but for CI."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
def hierarchy(tmp_path: Path) -> Iterator[Hierarchy]:
    """Starts brokers and tiers, and ends them all."""
    with ExitStack() as stack:
        yield Hierarchy(tmp_path, stack)
