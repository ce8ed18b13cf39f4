"""tracing.md: what it has installed is the extra, and its settings bring spans to a collector.

Of all three tiers, with a collector that was away: tests/e2e/test_traces.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.collector import collecting
from fakes.documents import ROOT, blocks_of, lines_of
from fakes.shell import run_line
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.messages import Tensors
from runtime.settings import load

BLOCKS = blocks_of((ROOT / "docs" / "tracing.md").read_text(), "tracing.md")
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PICTURE: Tensors = {"image": np.zeros((1, 28, 28), np.float32)}


@pytest.mark.timeout(60)
def test_the_extra_that_is_installed_is_there(tmp_path: Path) -> None:
    (line,) = lines_of(BLOCKS[0])

    # What tests need has it; nothing is asked of anybody else.
    said = run_line(f"{line} --dry-run --no-index", tmp_path)

    assert "opentelemetry-exporter-otlp-proto-http" in said
    assert "does not provide the extra" not in said


async def test_spans_arrive_by_the_settings_of_the_page(tmp_path: Path) -> None:
    (block,) = [one for one in BLOCKS if one.language == "toml"]
    async with collecting() as collector:
        text = block.text.replace("http://127.0.0.1:4318/v1/traces", collector.url)
        file = tmp_path / "edge.toml"
        file.write_text(f'agent = "camera-1"\nregion = "plant"\n{text}')
        flags = [f"state.folder={tmp_path / 'state'}"]
        settings, _ = load(EdgeSettings, file=file, environment={}, flags=flags)

        bus = MemoryBus(MemoryBroker(), client_id="camera-1")
        async with Agent(settings, bus=bus) as agent:
            # A caller that traces has decided, whatever the share of the others.
            await agent.infer(PICTURE, budget_ms=1000, traceparent=CALLER)
            await eventually(lambda: collector.named("inference", "edge"), 15)

    assert settings.tracing.sample_share == 0.01
    (request,) = collector.named("request", "edge")
    assert f"00-{request.trace_id}-{request.parent_id}-01" == CALLER
