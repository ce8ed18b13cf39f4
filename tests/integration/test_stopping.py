"""Stops over the bus without sockets: what they do at each tier, over restarts and reconnects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.stops import in_force, mode_of, said_of, state, stated, stop
from fakes.tiers import SURE, UNSURE, NumbersBackend, tiers_that_worked
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.memory_link import LinkFaults
from runtime.messages import Tier
from runtime.ports import Message


async def test_a_stopped_device_answers_nothing_and_says_who_and_why(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(SURE), state=tmp_path)
    await online(stack, device)
    before, _ = await ask(device)

    desk.publish(stated(state(1, stop(why="recall 7"))))
    await in_force(device)
    during, _ = await ask(device)
    desk.publish(stated(state(2)))
    await in_force(device, "")
    after, _ = await ask(device)

    assert said_of(before) == said_of(after) == ("answered", "confident", "none")
    assert said_of(during) == ("abstained", "stopped", "none")
    assert during.outputs == {}
    assert during.label is None
    assert during.error_code == "stopped"
    assert during.notice.startswith("stop of all by kim@desk since 2026")
    assert during.notice.endswith("recall 7")
    assert [(hop.reason.value, hop.label) for hop in during.hops] == [("stopped", None)]
    assert device.backends[0].num_runs == 2
    assert device.log.records[1].reason == "stopped"
    assert device.counted('tierwise_edge_controls_total{result="applied"}') == 2
    assert device.counted('tierwise_edge_answers_total{answered_by="none",outcome="abst') == 1


@pytest.mark.parametrize("scores", [SURE, UNSURE])
async def test_in_fallback_the_local_model_answers_alone_and_degraded(
    broker: MemoryBroker,
    desk: MemoryBus,
    stack: AsyncExitStack,
    tmp_path: Path,
    scores: tuple[float, ...],
) -> None:
    device = edge(broker, NumbersBackend(scores), state=tmp_path)
    await online(stack, device, gateway(broker), cloud(broker))
    desk.publish(stated(state(1, stop(mode="fallback"))))
    await in_force(device, "fallback")

    answer, _ = await ask(device)

    assert said_of(answer) == ("degraded", "fallback", "none")
    assert (answer.tier, answer.label) == (Tier.EDGE, 0)
    assert tiers_that_worked(answer) == ["edge"]
    assert answer.notice.startswith("fallback of all")
    assert device.counted("tierwise_edge_escalations_total") == 0
    assert device.counted('tierwise_edge_stopped_ratio{mode="fallback"}') == 1


async def test_a_model_that_fails_in_fallback_fails(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(is_broken=True), state=tmp_path)
    await online(stack, device)
    desk.publish(stated(state(1, stop(mode="fallback"))))
    await in_force(device, "fallback")

    answer, _ = await ask(device)

    assert said_of(answer) == ("failed", "local_failed", "none")


async def test_a_stopped_gateway_refuses_and_the_device_keeps_its_answer(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device, door = edge(broker), gateway(broker, state=tmp_path)
    await online(stack, device, door)
    desk.publish(stated(state(1, stop("device", "regional-1"))))
    await in_force(door)

    answer, _ = await ask(device)

    assert said_of(answer) == ("degraded", "upstream_refused", "none")
    assert answer.tier is Tier.EDGE
    assert door.backends[0].num_runs == 0
    assert door.counted('tierwise_regional_refused_requests_total{code="stopped"}') == 1


async def test_the_answer_of_a_gateway_in_fallback_says_so(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device, door = edge(broker), gateway(broker, NumbersBackend(SURE), state=tmp_path)
    await online(stack, device, door)
    desk.publish(stated(state(1, stop("device", "regional-1", "fallback"))))
    await in_force(door, "fallback")

    answer, _ = await ask(device)

    assert said_of(answer) == ("degraded", "fallback", "none")
    assert answer.tier is Tier.REGIONAL
    assert answer.notice.startswith("fallback of device regional-1 by kim@desk")


async def test_a_gateway_refuses_a_stopped_device_that_does_not_obey(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    deaf, door = edge(broker), gateway(broker, state=tmp_path)
    await online(stack, deaf, door)
    desk.publish(stated(state(1, stop("device", "edge-1"))))
    await eventually(lambda: door.switch and door.switch.known)

    answer, _ = await ask(deaf)

    assert answer.reason.value == "upstream_refused"
    assert mode_of(door) == ""


async def test_an_answer_that_is_stopped_on_its_way_does_not_go_out(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(SURE, delay_s=0.2), state=tmp_path)
    await online(stack, device)

    asked = asyncio.create_task(ask(device))
    await eventually(lambda: device.backends[0].num_runs)
    desk.publish(stated(state(1, stop())))
    answer, _ = await asked

    assert said_of(answer) == ("abstained", "stopped", "none")
    assert answer.outputs == {}
    assert answer.hops[0].label is None


async def test_what_was_stopped_holds_over_a_restart_without_a_network(
    broker: MemoryBroker, desk: MemoryBus, tmp_path: Path
) -> None:
    async with edge(broker, state=tmp_path) as device:
        desk.publish(stated(state(5, stop("region", "r"))))
        await in_force(device)

    broker.stop()
    async with edge(broker, state=tmp_path) as again:
        answer, _ = await ask(again)

    assert said_of(answer) == ("abstained", "stopped", "none")
    # Nobody waited for what a broker that is not there retains.
    assert again.counted('tierwise_edge_controls_total{result="unheard"}') == 0
    assert "by kim@desk" in answer.notice


async def test_a_device_that_moved_to_another_region_is_not_stopped_by_the_first(
    tmp_path: Path,
) -> None:
    ControlLatch(tmp_path, "r").write({"r": state(5, stop())})

    assert ControlLatch(tmp_path, "s").read() == {}
    assert ControlLatch(tmp_path, "r").read() == {"r": state(5, stop())}


async def test_a_gateway_that_is_stopped_while_it_works_refuses(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    door = gateway(broker, NumbersBackend(SURE, delay_s=0.2), state=tmp_path)
    device = edge(broker)
    await online(stack, device, door)

    asked = asyncio.create_task(ask(device))
    await eventually(lambda: door.backends[0].num_runs)
    desk.publish(stated(state(1, stop("device", "regional-1"))))
    answer, _ = await asked

    assert said_of(answer) == ("degraded", "upstream_refused", "none")


async def test_replayed_older_and_odd_states_change_nothing(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, state=tmp_path)
    await online(stack, device)
    desk.publish(stated(state(5, stop())))
    await in_force(device)

    topic = topics.control("r")
    for message in (
        stated(state(4)),
        stated(state(5, stop())),
        Message(topic, b"{", qos=1),
        Message(topic, b'{"kind":"control","region":"r","sequence":0}', qos=1),
        Message(topic, b'{"kind":"cancel","request_id":"a"}', qos=1),
        Message(topic, stated(state(9, region="other")).payload, qos=1),
        stated(state(9, stop("all", "r"))),
        Message(topic, b"", qos=1, retain=True),
    ):
        desk.publish(message)
    await eventually(
        lambda: device.counted('tierwise_edge_controls_total{result="malformed"}') == 5
    )

    assert device.counted('tierwise_edge_controls_total{result="stale"}') == 2
    assert mode_of(device) == "stop"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a link of these tests takes, also on a busy machine."""
    monkeypatch.setattr("runtime.exchange.stopping.REQUEST_WAIT_MS", 8000.0)
    monkeypatch.setattr("runtime.exchange.stopping.CONNECTION_WAIT_S", 8.0)


@pytest.mark.usefixtures("patience")
async def test_nothing_is_answered_after_a_connect_before_what_is_retained_is_heard(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    desk.publish(stated(state(1, stop())))
    device = edge(broker, NumbersBackend(SURE), state=tmp_path, link=LinkFaults(delay_s=0.3))
    await online(stack, device)
    await device.bus.wait_connected(10)
    assert mode_of(device) == ""

    answer, _ = await ask(device, budget_ms=30_000)

    assert said_of(answer) == ("abstained", "stopped", "none")
    assert device.backends[0].num_runs == 0


@pytest.mark.usefixtures("patience")
async def test_a_device_that_comes_back_hears_the_stop_first(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    link = LinkFaults(delay_s=0.3)
    device = edge(broker, NumbersBackend(SURE), state=tmp_path, link=link)
    await online(stack, device)
    await eventually(lambda: device.switch and device.switch.is_heard)
    device.bus.drop_connection()
    desk.publish(stated(state(1, stop())))
    alone, _ = await ask(device)

    await eventually(lambda: device.bus.is_connected)
    back, _ = await ask(device, budget_ms=30_000)

    assert said_of(alone) == ("answered", "confident", "none")
    assert said_of(back) == ("abstained", "stopped", "none")


async def test_a_request_waits_for_a_slow_link_within_its_budget_only(
    broker: MemoryBroker, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(SURE), state=tmp_path, link=LinkFaults(delay_s=1.2))
    await online(stack, device)
    await device.bus.wait_connected(10)

    hasty, _ = await ask(device, budget_ms=300)
    patient, patient_ms = await ask(device, budget_ms=5000)
    took_ms = []
    until_s = time.monotonic() + 0.9
    while time.monotonic() < until_s:
        took_ms.append((await ask(device, budget_ms=5000))[1])

    assert {said_of(one) for one in (hasty, patient)} == {("answered", "confident", "none")}
    # Half of the budget at most, 200 ms a request, and a second a connection.
    assert 190 < patient_ms < 2500
    assert min(took_ms) < 150
    assert device.counted('tierwise_edge_controls_total{result="unheard"}') >= 3
    assert device.counted("tierwise_edge_late_answers_total") == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[: len(good) // 2],
        lambda good: good.replace(b'"sequence":2', b'"sequence":1'),
        lambda _: b"",
        lambda _: b"[3]\n" + b"0" * 64 + b"\n",
    ],
)
async def test_with_a_damaged_latch_nothing_is_answered_until_the_broker_is_heard(
    broker: MemoryBroker, desk: MemoryBus, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    async with edge(broker, NumbersBackend(SURE), state=tmp_path) as device:
        desk.publish(stated(state(1, stop())))
        await in_force(device)
        desk.publish(stated(state(2)))
        await in_force(device, "")
    path = tmp_path / "control.json"
    path.write_bytes(damage(path.read_bytes()))

    broker.stop()
    with capture_logs() as logs:
        async with edge(broker, NumbersBackend(SURE), state=tmp_path) as device:
            assert device.switch is not None
            offline, _ = await ask(device)
            shown = device.switch.shown()
            broker.start()
            await eventually(lambda: device.switch and device.switch.is_heard)
            heard, _ = await ask(device)

    assert said_of(offline) == ("abstained", "stopped", "none")
    assert "cannot be read from disk" in offline.notice
    assert (shown["mode"], shown["is_known"]) == ("stop", False)
    assert said_of(heard) == ("answered", "confident", "none")
    assert [line["event"] for line in logs if "control" in line["event"]] == [
        "control.damaged",
        "control.known_again",
    ]
    assert path.read_bytes().startswith(b'{"region":"r","states":[]}\n')


async def test_a_latch_that_cannot_be_written_is_said_and_tried_again(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    device = edge(broker, state=folder)
    assert device.switch is not None
    folder.write_text("in the way")
    await online(stack, device)

    desk.publish(stated(state(1, stop())))
    with capture_logs() as logs:
        await eventually(lambda: any(one["event"] == "control.not_latched" for one in logs))
    before = device.switch.shown()
    folder.unlink()
    device.bus.drop_connection()
    await eventually((folder / "control.json").exists)
    await device.switch.close()

    assert (before["mode"], before["is_latched"]) == ("stop", False)
    assert device.switch.shown()["is_latched"] is True
