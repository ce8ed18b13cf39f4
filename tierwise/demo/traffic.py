"""The callers of the demo: each picture is asked about once, at a steady rate, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import numpy as np
import numpy.typing as npt
from prometheus_client.parser import text_string_to_metric_families

from runtime.errors import RequestError
from runtime.messages import Tensors
from tierwise import client
from tierwise.demo.tally import Seen

SENT_BY = ("tierwise_edge_escalations_total", "tierwise_edge_audits_total")
# A caller that hears nothing gives up this long after its budget; that counts as failed.
GIVE_UP_S = 5.0


class Asked(Protocol):
    """What is asked about: its place among the requests, its tensors, its true label."""

    @property
    def index(self) -> int:
        """Which one it is."""
        ...

    @property
    def truth(self) -> int:
        """The class index that is right."""
        ...

    def inputs(self) -> Tensors:
        """What is sent, a batch of one."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """One picture ``(28, 28)`` uint8, its index and its true label."""

    index: int
    picture: npt.NDArray[np.uint8]
    truth: int

    def inputs(self) -> Tensors:
        """The picture as the bundled models take it."""
        return {"image": self.picture[None].astype(np.float32) / np.float32(255)}


@dataclass(frozen=True, slots=True)
class Caller:
    """Asks agents and reports what came back and when."""

    session: aiohttp.ClientSession
    agent_bases: Sequence[str]
    budget_ms: float
    is_cut: Callable[[], bool]
    model: str = "fashion"

    async def ask(self, question: Asked) -> Seen:
        """Asks the agent whose turn it is; never raises."""
        base = self.agent_bases[question.index % len(self.agent_bases)]
        inputs = question.inputs()
        loop = asyncio.get_running_loop()
        in_outage = self.is_cut()
        started_s = loop.time()
        outcome, tier, label = await self._post(base, inputs)
        return Seen(
            index=question.index,
            outcome=outcome,
            tier=tier,
            label=label,
            truth=question.truth,
            latency_ms=(loop.time() - started_s) * 1000,
            in_outage=in_outage,
        )

    async def _post(self, base: str, inputs: Tensors) -> tuple[str, str | None, int | None]:
        try:
            response = await client.infer(
                self.session,
                base,
                self.model,
                inputs,
                parameters={"remaining_ms": self.budget_ms},
                timeout_s=self.budget_ms / 1000 + GIVE_UP_S,
            )
        except (aiohttp.ClientError, TimeoutError, RequestError):
            return "failed", None, None
        said = response.parameters
        return str(said.get("outcome", "failed")), said.get("tier"), said.get("label")


async def stream(
    caller: Caller,
    questions: Sequence[Asked],
    per_s: float,
    on_seen: Callable[[Seen], None],
) -> None:
    """Asks all questions at a steady rate, whether or not earlier answers are back."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    async def one(question: Asked) -> None:
        on_seen(await caller.ask(question))

    async with asyncio.TaskGroup() as group:
        for position, question in enumerate(questions):
            await asyncio.sleep(max(0.0, start_s + position / per_s - loop.time()))
            group.create_task(one(question), name=f"question {question.index}")


async def uplink(agent_bases: Sequence[str]) -> tuple[int, int]:
    """Bytes from agents to the gateway, with MQTT framing, and for how many requests and audits."""
    num_bytes = num_sent = 0.0
    async with aiohttp.ClientSession() as session:
        for base in agent_bases:
            async with session.get(f"{base}/metrics") as response:
                text = await response.text()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name == "tierwise_edge_uplink_bytes_total":
                        num_bytes += sample.value
                    elif sample.name in SENT_BY and sample.labels.get("result") != "skipped":
                        num_sent += sample.value
    return round(num_bytes), round(num_sent)
