"""A payload that must stay on its device is on no socket, in no file and in no log line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.common_settings import EscalationSettings, ModelSettings, StateSettings
from runtime.messages import Birth, Outcome, Reason, Residency, Tier, encode_control
from runtime.ports import Message
from runtime.topics import gateway_state

# A picture that nothing else looks like, byte for byte.
SECRET = np.linspace(0.1234, 0.5678, 784, dtype=np.float32).reshape(1, 28, 28)


def traces_of(raw: bytes, picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    """Whether something of the picture is in there, as bytes or as text."""
    pieces = [picture.tobytes()[start : start + 16] for start in range(0, 3000, 500)]
    texts = [f"{float(value):.5f}".encode() for value in picture.ravel()[100:700:100]]
    return any(piece in raw for piece in (*pieces, *texts))


def all_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("residency", "leaves"), [(Residency.DEVICE, False), (Residency.CLOUD, True)]
)
async def test_what_must_stay_leaves_no_trace_outside_of_memory(
    tmp_path: Path, residency: Residency, leaves: bool
) -> None:
    broker = MemoryBroker()
    heard: list[Message] = []
    observer = MemoryBus(broker, client_id="observer")
    observer.subscribe("#", heard.append)
    await observer.start()
    assert await observer.wait_connected(10)
    birth = Birth(Tier.REGIONAL, "gateway-1", "r", 1, capacity=8)
    observer.publish(
        Message(gateway_state("r", "gateway-1"), encode_control(birth), qos=1, retain=True)
    )
    settings = EdgeSettings(
        agent="a",
        region="r",
        state=StateSettings(folder=str(tmp_path)),
        model=ModelSettings(accept_at=1.0),
        escalation=EscalationSettings(audit_rate=1.0),
    )

    with capture_logs() as logs:
        async with Agent(settings, bus=MemoryBus(broker, client_id="a")) as agent:
            await eventually(lambda: agent.flow._uplink and agent.flow._uplink.choose())
            answer = await agent.infer({"image": SECRET}, budget_ms=1000, residency=residency)
        await observer.close()
    files = all_in(tmp_path)

    assert answer.outcome is Outcome.DEGRADED
    assert (answer.reason is Reason.RESIDENCY) is not leaves
    assert any(traces_of(message.payload, SECRET) for message in heard) is leaves
    assert traces_of(files, SECRET) is leaves
    assert not traces_of(json.dumps(logs, default=str).encode(), SECRET)
