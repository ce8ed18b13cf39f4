"""Run inside of the emulated machine: an agent answers bundled pictures; prints JSON."""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from model_zoo.catalog import bundled_pictures
from model_zoo.idx import to_pixels
from runtime.common_settings import EscalationSettings, LogSettings, StateSettings


async def ask(num_pictures: int, folder: Path) -> dict[str, object]:
    """Labels and confidences, as an application would get them."""
    pixels = to_pixels(bundled_pictures("test").pictures[:num_pictures])
    settings = EdgeSettings(
        agent="emulated",
        region="nowhere",
        state=StateSettings(folder=str(folder)),
        log=LogSettings(level="error"),
        escalation=EscalationSettings(enabled=False),
    )
    labels, confidences = list[int | None](), list[float]()
    async with Agent(settings) as agent:
        for picture in pixels:
            answer = await agent.infer({"image": picture[np.newaxis]}, budget_ms=10_000)
            labels.append(answer.label)
            confidences.append(round(answer.confidence, 6))
    return {"machine": platform.machine(), "labels": labels, "confidences": confidences}


with tempfile.TemporaryDirectory() as scratch:
    print(json.dumps(asyncio.run(ask(int(sys.argv[1]), Path(scratch)))))
