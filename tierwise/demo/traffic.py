"""The callers of the demo: each picture is asked about once, at a steady rate, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np
import numpy.typing as npt

from runtime.errors import RequestError
from tierwise import client
from tierwise.demo.tally import Seen

# A caller that hears nothing gives up this long after its budget; that counts as failed.
GIVE_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """One picture ``(28, 28)`` uint8, its index and its true label."""

    index: int
    picture: npt.NDArray[np.uint8]
    truth: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Asks agents and reports what came back and when."""

    session: aiohttp.ClientSession
    agent_bases: Sequence[str]
    budget_ms: float
    is_cut: Callable[[], bool]

    async def ask(self, question: Question) -> Seen:
        """Asks the agent whose turn it is; never raises."""
        base = self.agent_bases[question.index % len(self.agent_bases)]
        pixels = question.picture[None].astype(np.float32) / np.float32(255)
        loop = asyncio.get_running_loop()
        in_outage = self.is_cut()
        started_s = loop.time()
        outcome, tier, label = await self._post(base, pixels)
        return Seen(
            index=question.index,
            outcome=outcome,
            tier=tier,
            label=label,
            truth=question.truth,
            latency_ms=(loop.time() - started_s) * 1000,
            in_outage=in_outage,
        )

    async def _post(
        self, base: str, pixels: npt.NDArray[np.float32]
    ) -> tuple[str, str | None, int | None]:
        try:
            response = await client.infer(
                self.session,
                base,
                "fashion",
                {"image": pixels},
                parameters={"remaining_ms": self.budget_ms},
                timeout_s=self.budget_ms / 1000 + GIVE_UP_S,
            )
        except (aiohttp.ClientError, TimeoutError, RequestError):
            return "failed", None, None
        said = response.parameters
        return str(said.get("outcome", "failed")), said.get("tier"), said.get("label")


async def stream(
    caller: Caller,
    questions: Sequence[Question],
    per_s: float,
    on_seen: Callable[[Seen], None],
) -> None:
    """Asks all questions at a steady rate, whether or not earlier answers are back."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    async def one(question: Question) -> None:
        on_seen(await caller.ask(question))

    async with asyncio.TaskGroup() as group:
        for position, question in enumerate(questions):
            await asyncio.sleep(max(0.0, start_s + position / per_s - loop.time()))
            group.create_task(one(question), name=f"question {question.index}")
