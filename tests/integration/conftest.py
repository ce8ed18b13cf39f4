"""What several of these tests have: brokers without sockets, agents, alerts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cloud_tier.operators.access import write_operator_file
from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from edge_agent.settings import EdgeSettings
from fakes.alert_desk import Desk
from fakes.catalogue import Cloud, Device, LyingMirror
from fakes.stops import operator
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.common_settings import RequestSettings, StateSettings


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What a test has opened, closed after it."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker without sockets."""
    return MemoryBroker()


@pytest.fixture
async def desk(broker: MemoryBroker, stack: AsyncExitStack) -> MemoryBus:
    """The bus of an operator at the broker without sockets."""
    bus = await operator(broker)
    stack.push_async_callback(bus.close)
    return bus


@pytest.fixture
async def alert_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """The alerts of a cloud tier."""
    desk = Desk(tmp_path)
    yield desk
    await desk.close()


@pytest.fixture
def edge_settings(tmp_path: Path) -> EdgeSettings:
    return EdgeSettings(
        agent="agent-1",
        region="r",
        state=StateSettings(folder=str(tmp_path / "agent-1")),
        request=RequestSettings(max_body_bytes=100_000, max_budget_ms=10_000),
    )


@pytest.fixture
async def agent(edge_settings: EdgeSettings) -> AsyncIterator[Agent]:
    """An agent without anybody above it."""
    bus = MemoryBus(MemoryBroker(), client_id="agent-1")
    async with Agent(edge_settings, bus=bus) as agent:
        yield agent


@pytest.fixture
async def agent_url(agent: Agent) -> AsyncIterator[str]:
    async with serving(InferenceApi(agent).app(), "127.0.0.1", 0) as base:
        yield base


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """Version 1 of a model is published."""
    cloud = Cloud(tmp_path / "repository")
    cloud.publish(1)
    return cloud


@pytest.fixture
def mirror(cloud: Cloud) -> LyingMirror:
    return LyingMirror(cloud.folder)


@pytest.fixture
def device(cloud: Cloud, mirror: LyingMirror, tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path / "device", mirror, cloud.root)
    yield device
    device.store.close()


@pytest.fixture
def operator_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a cloud tier writes it; where the service really is, commands say themselves."""
    path = write_operator_file(tmp_path, "http://127.0.0.1:1", "t" * 43)
    monkeypatch.setenv("TIERWISE_OPERATOR", str(path))
    return path
