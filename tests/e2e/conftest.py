"""Hierarchies of real processes over a real broker."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from fakes.browser import chromium
from fakes.programs import UNSURE, Asker, TierProgram, free_port
from runtime.adapters.broker import start_broker
from runtime.adapters.dial import BrokerAddress


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
def hierarchy(tmp_path: Path) -> Any:
    """Starts brokers and tiers, and ends them all."""
    with ExitStack() as stack:

        class Hierarchy:
            address = BrokerAddress("127.0.0.1", free_port())

            def broker(self) -> Any:
                folder = tmp_path / f"broker-{time.monotonic_ns()}"
                running = start_broker(folder, port=self.address.port)
                stack.callback(running.stop)
                return running

            def tier(self, kind: str, name: str, *flags: str) -> TierProgram:
                return stack.enter_context(TierProgram(kind, name, tmp_path, self.address, *flags))

            def all_tiers(self) -> tuple[TierProgram, TierProgram, TierProgram]:
                cloud = self.tier("cloud", "cloud-1")
                gateway = self.tier("gateway", "gateway-1", UNSURE)
                return self.tier("edge", "agent-1", UNSURE), gateway, cloud

        yield Hierarchy()
