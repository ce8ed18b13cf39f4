"""The agent as a process: the in-process agent behind HTTP on loopback."""

from __future__ import annotations

import asyncio

import structlog

from edge_agent.agent import Agent
from edge_agent.http_api import InferenceApi
from edge_agent.settings import EdgeSettings
from runtime.adapters.http_server import serving
from runtime.adapters.service_manager import telling_manager

_log = structlog.get_logger()


async def serve(settings: EdgeSettings, stop: asyncio.Event) -> None:
    """Runs until ``stop`` is set.

    Raises:
        ArtifactError: the model cannot be used.
        PolicyError: the policy cannot be used, or is for another model.
        StartError: the port or the state folder cannot be used.
    """
    async with (
        Agent(settings) as agent,
        serving(InferenceApi(agent).app(), settings.http.host, settings.http.port) as base,
        telling_manager() as manager,
    ):
        agent.http_base = base
        _log.info("http.listening", url=base)
        await stop.wait()
        manager.stopping()
