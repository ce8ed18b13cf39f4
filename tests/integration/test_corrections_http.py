"""Corrections and feedback as an application on the device sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from edge_agent.agent import Agent
from edge_agent.corrections_api import MAX_LISTENERS, CorrectionsApi
from edge_agent.http_api import InferenceApi
from edge_agent.settings import EdgeSettings
from fakes.waiting import eventually
from runtime.adapters.corrections import CorrectionEvent
from runtime.adapters.http_server import serving
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.outbox_reader import find_item, items_in
from runtime.common_settings import ModelSettings
from runtime.errors import MalformedBodyError
from runtime.messages import ItemKind, Outcome, Reason, Said, Tier

GREY = np.full((1, 28, 28), 0.5, np.float32)
BETTER = Said(Outcome.ANSWERED, Reason.TOP_TIER, Tier.CLOUD, 3, "dress", 0.97)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def edge_settings(edge_settings: EdgeSettings) -> EdgeSettings:
    """An agent that is never sure enough."""
    return msgspec.structs.replace(edge_settings, model=ModelSettings(accept_at=1.0))


async def unanswered(agent: Agent, request_id: str) -> None:
    """A request that no tier above has seen."""
    answer = await agent.infer({"image": GREY}, budget_ms=5000, request_id=request_id)
    assert answer.outcome is Outcome.DEGRADED


class Stream:
    """Server-sent events as a listener reads them."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self, prefix: bytes = b"") -> dict[str, str]:
        """The next block with a line that begins so."""
        while True:
            block = (await self._response.content.readuntil(b"\n\n")).decode().splitlines()
            if any(line.startswith(prefix.decode()) for line in block if line):
                return dict(line.partition(": ")[::2] for line in block if line)


async def test_a_listener_gets_each_correction_as_an_event(
    agent: Agent, agent_url: str, http: aiohttp.ClientSession
) -> None:
    await unanswered(agent, "first")
    await unanswered(agent, "second")
    async with http.get(f"{agent_url}/v2/corrections") as response:
        stream = Stream(response)
        await stream.next(b":")
        await agent.desk._apply("first", BETTER)
        one = await stream.next(b"id")
        await agent.desk._apply("first", BETTER)
        await agent.desk._apply("second", BETTER)
        two = await stream.next(b"id")

    assert response.headers["Content-Type"] == "text/event-stream"
    assert (one["id"], one["event"]) == ("1", "correction")
    event = json.loads(one["data"])
    assert (event["request_id"], event["now"]["label"]) == ("first", 3)
    assert event["was"]["reason"] == "no_upstream"
    assert event["confirmed"] is (event["was"]["label"] == 3)
    # The one that came twice is no second event.
    assert (two["id"], json.loads(two["data"])["request_id"]) == ("2", "second")


@pytest.mark.parametrize("how", ["header", "query"])
async def test_a_listener_that_comes_back_goes_on_where_it_was(
    agent: Agent, agent_url: str, http: aiohttp.ClientSession, how: str
) -> None:
    for number in range(3):
        await unanswered(agent, f"r{number}")
        await agent.desk._apply(f"r{number}", BETTER)
    headers = {"Last-Event-ID": "2"} if how == "header" else {}
    query = {} if how == "header" else {"after": "2"}

    async with http.get(f"{agent_url}/v2/corrections", headers=headers, params=query) as response:
        event = await Stream(response).next(b"id")

    assert event["id"] == "3"


async def test_a_quiet_stream_has_heartbeats(agent: Agent, http: aiohttp.ClientSession) -> None:
    app = InferenceApi(agent).app()
    quick = aiohttp.web.Application()
    CorrectionsApi(agent, heartbeat_s=0.02).add_to(quick)
    app.add_subapp("/quick", quick)

    async with (
        serving(app, "127.0.0.1", 0) as base,
        http.get(f"{base}/quick/v2/corrections") as response,
    ):
        first = await response.content.readuntil(b"\n\n")
        second = await response.content.readuntil(b"\n\n")

    assert (first, second) == (b": corrections\n\n", b": heartbeat\n\n")


@pytest.mark.parametrize("said", ["-1", "x", "1e3", "9" * 19])
async def test_a_number_that_is_none_is_refused(
    agent_url: str, http: aiohttp.ClientSession, said: str
) -> None:
    async with http.get(f"{agent_url}/v2/corrections", params={"after": said}) as response:
        assert response.status == 400


async def test_listeners_are_bounded(agent: Agent, http: aiohttp.ClientSession) -> None:
    app = aiohttp.web.Application()
    api = CorrectionsApi(agent)
    api.add_to(app)
    api._num_listeners = MAX_LISTENERS
    whole = InferenceApi(agent).app()
    whole.add_subapp("/full", app)

    async with (
        serving(whole, "127.0.0.1", 0) as base,
        http.get(f"{base}/full/v2/corrections") as response,
    ):
        assert response.status == 503


async def test_streams_end_with_the_server(agent: Agent, http: aiohttp.ClientSession) -> None:
    app = InferenceApi(agent).app()
    async with serving(app, "127.0.0.1", 0) as base:
        response = await http.get(f"{base}/v2/corrections")
        await response.content.readuntil(b"\n\n")
        began_s = asyncio.get_running_loop().time()

    assert await response.read() == b""
    assert asyncio.get_running_loop().time() - began_s < 10


async def test_a_long_poll_waits_for_the_correction(
    agent: Agent, agent_url: str, http: aiohttp.ClientSession
) -> None:
    await unanswered(agent, "a/b c")
    url = f"{agent_url}/v2/corrections/a%2Fb%20c"
    async with http.get(url) as response:
        first = response.status, await response.json()

    async def poll() -> tuple[int, Any]:
        async with http.get(url, params={"wait_s": "10"}) as response:
            return response.status, await response.json()

    polling = asyncio.create_task(poll())
    await asyncio.sleep(0.05)
    was_done = polling.done()
    await agent.desk._apply("a/b c", BETTER)
    status, event = await polling

    assert first == (202, {"request_id": "a/b c", "state": "waiting"})
    assert not was_done
    assert (status, event["now"]["label_name"]) == (200, "dress")


async def test_a_long_poll_for_what_is_not_to_come_says_so_at_once(
    agent: Agent, agent_url: str, http: aiohttp.ClientSession
) -> None:
    await unanswered(agent, "dropped")
    query = "UPDATE corrections SET state = 'dropped'"
    assert agent._storage is not None
    await agent._storage.outbox.file.run(lambda file: file.execute(query))
    found = {}
    for name, query in [("unknown", "30"), ("dropped", "30"), ("dropped", "nan"), ("x", "-1")]:
        url = f"{agent_url}/v2/corrections/{name}"
        async with http.get(url, params={"wait_s": query}) as response:
            found[name, query] = response.status

    assert found == {
        ("unknown", "30"): 404,
        ("dropped", "30"): 410,
        ("dropped", "nan"): 400,
        ("x", "-1"): 400,
    }


async def test_feedback_is_kept_with_what_had_been_answered(
    agent: Agent, agent_url: str, http: aiohttp.ClientSession, edge_settings: EdgeSettings
) -> None:
    await unanswered(agent, "r1")
    body = {"request_id": "r1", "label": "Coat", "is_correct": False, "comment": "dark"}
    async with http.post(f"{agent_url}/v2/feedback", json=body) as response:
        said = response.status, await response.json()
    path = Path(edge_settings.state.folder) / "outbox.sqlite"
    item = await asyncio.to_thread(find_item, path, said[1]["item"])

    assert said[0] == 200
    assert said[1]["is_known"] is True
    assert item is not None
    assert item.kind is ItemKind.FEEDBACK
    content = json.loads(item.body)
    assert (content["label"], content["label_name"], content["comment"]) == (4, "Coat", "dark")
    assert content["answered"]["answered_by"] == "edge"


async def test_feedback_about_an_unknown_request_is_kept_and_says_so(agent: Agent) -> None:
    receipt = await agent.feedback("never-seen", is_correct=True)

    assert receipt.is_known is False


@pytest.mark.parametrize(
    "body",
    [
        {"request_id": "r"},
        {"request_id": "", "label": 1},
        {"request_id": "r", "label": 10},
        {"request_id": "r", "label": "cat"},
        {"request_id": "r", "comment": "x" * 1001},
        {"request_id": "r", "label": 1, "more": 1},
        {"request_id": "r", "comment": "x" * 9000},
        [],
    ],
)
async def test_feedback_that_is_none_is_refused(
    agent_url: str, http: aiohttp.ClientSession, body: Any
) -> None:
    async with http.post(f"{agent_url}/v2/feedback", json=body) as response:
        assert response.status == 400


async def test_an_application_hears_of_each_correction_once_also_after_a_restart(
    edge_settings: EdgeSettings,
) -> None:
    heard: list[CorrectionEvent] = []
    again: list[CorrectionEvent] = []

    def fails(event: CorrectionEvent) -> None:
        heard.append(event)
        raise ZeroDivisionError

    async def note(event: CorrectionEvent) -> None:
        again.append(event)

    async with Agent(edge_settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        agent.on_correction(fails)
        await unanswered(agent, "r1")
        await unanswered(agent, "r2")
        await agent.desk._apply("r1", BETTER)
        await eventually(lambda: heard)
    # The next life, in which the correction of the second one comes.
    async with Agent(edge_settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        await agent.desk._apply("r2", BETTER)
        agent.on_correction(note)
        await eventually(lambda: again)
        events = []
        async for event in agent.corrections():
            events.append(event.request_id)
            if len(events) == 2:
                break

    assert [event.request_id for event in heard] == ["r1"]
    assert [(event.seq, event.request_id) for event in again] == [(2, "r2")]
    assert events == ["r1", "r2"]


async def test_a_close_while_an_application_hears_of_a_correction_is_no_reason_to_say_it_again(
    edge_settings: EdgeSettings,
) -> None:
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    heard: list[str] = []

    async def slow(event: CorrectionEvent) -> None:
        heard.append(event.request_id)
        begun.set()
        await may_go_on.wait()

    async with Agent(edge_settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        agent.on_correction(slow)
        for name in ("r1", "r2"):
            await unanswered(agent, name)
            await agent.desk._apply(name, BETTER)
        await begun.wait()
        closing = asyncio.ensure_future(agent.desk.close())
        await asyncio.sleep(0)
        may_go_on.set()
        await closing
        before = list(heard)
    async with Agent(edge_settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        agent.on_correction(slow)
        await eventually(lambda: len(heard) >= 2)

    assert before == ["r1"]
    assert heard == ["r1", "r2"]


async def test_a_queue_is_all_there_after_a_reboot_without_a_network(
    edge_settings: EdgeSettings,
) -> None:
    # Peers that fail: KubeEdge #4210, Roboflow (a cache in a temporary folder).
    path = Path(edge_settings.state.folder) / "outbox.sqlite"
    async with Agent(edge_settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        await unanswered(agent, "r1")
        await agent.feedback("r1", label=2)
        before = await asyncio.to_thread(items_in, path)
    async with Agent(edge_settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        after = await asyncio.to_thread(items_in, path)
        answer = await agent.infer({"image": GREY}, budget_ms=5000)

    assert {item.kind for item in before} == {ItemKind.FEEDBACK, ItemKind.ESCALATION}
    assert {item.id for item in before} <= {item.id for item in after}
    # What was counted offline waits, too.
    assert {item.kind for item in after} - {item.kind for item in before} == {ItemKind.METRICS}
    assert answer.has_answer


async def test_without_an_agent_there_is_nothing_to_ask(edge_settings: EdgeSettings) -> None:
    agent = Agent(edge_settings)

    with pytest.raises(RuntimeError):
        agent.on_correction(lambda _: None)
    with pytest.raises(RuntimeError):
        await agent.feedback("r")


async def test_corrections_can_be_switched_off(edge_settings: EdgeSettings) -> None:
    off = msgspec.structs.replace(edge_settings.escalation, corrections=False)
    settings = msgspec.structs.replace(edge_settings, escalation=off)
    async with Agent(settings, bus=MemoryBus(MemoryBroker(), client_id="a")) as agent:
        await unanswered(agent, "r1")

        assert await agent.desk.known("r1") is None
        with pytest.raises(MalformedBodyError):
            await agent.feedback("r1")
