"""Real HTTP servers for members that are servers: an agent of ours, and ones that misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from edge_agent.settings import EdgeSettings
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.common_settings import (
    EscalationSettings,
    ModelSettings,
    RequestSettings,
    StateSettings,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_START_S = 15.0


@contextmanager
def in_a_thread(entered: Callable[[], AbstractAsyncContextManager[str]]) -> Iterator[str]:
    """What an asynchronous context gives, run on an event loop of its own beside the test."""
    loop = asyncio.new_event_loop()
    is_up, stop = threading.Event(), asyncio.Event()
    found: list[str] = []

    async def main() -> None:
        async with entered() as url:
            found.append(url)
            is_up.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(main())
        finally:
            is_up.set()
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert is_up.wait(_START_S)
        assert found, "the server did not start"
        yield found[0]
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(_START_S)


@contextmanager
def agent_server(model: Path, state: Path) -> Iterator[str]:
    """The URL of an edge agent that answers all by itself, with this model."""

    @asynccontextmanager
    async def entered() -> Any:
        settings = EdgeSettings(
            agent="server",
            region="test",
            state=StateSettings(folder=str(state)),
            model=ModelSettings(folder=str(model)),
            escalation=EscalationSettings(enabled=False),
            request=RequestSettings(default_budget_ms=10_000),
        )
        bus = MemoryBus(MemoryBroker(), client_id="server")
        async with (
            Agent(settings, bus=bus) as agent,
            serving(InferenceApi(agent).app(), "127.0.0.1", 0) as url,
        ):
            yield url

    with in_a_thread(entered) as url:
        yield url


METADATA = {
    "name": "tiny",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
}


@contextmanager
def odd_server(
    infer: Handler,
    *,
    metadata: dict[str, Any] | Handler | None = None,
    extensions: tuple[str, ...] = ("binary_tensor_data",),
) -> Iterator[str]:
    """The URL of a server whose ``infer`` is this handler, and its metadata that of the model."""

    async def about_server(_: web.Request) -> web.Response:
        return web.json_response({"name": "odd", "version": "1", "extensions": list(extensions)})

    async def about_model(request: web.Request) -> web.StreamResponse:
        if callable(metadata):
            return await metadata(request)
        return web.Response(body=msgspec.json.encode(metadata or METADATA))

    app = web.Application()
    app.router.add_get("/v2", about_server)
    app.router.add_get("/v2/models/tiny", about_model)
    app.router.add_post("/v2/models/tiny/infer", infer)
    with in_a_thread(lambda: serving(app, "127.0.0.1", 0)) as url:
        yield url
