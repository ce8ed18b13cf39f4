"""Overrides over the bus without sockets: what they make of answers at each tier."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fakes.hierarchy import ask, cloud, edge, gateway, online
from fakes.overrides import known_to, overridden, override
from fakes.stops import stated
from fakes.tiers import SURE, UNSURE, FakeTier, NumbersBackend, tiers_that_worked
from fakes.waiting import eventually
from runtime.adapters.clock import SystemClock
from runtime.adapters.control_latch import ControlLatch
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.messages import Outcome, Override, Reason, Tier

SECOND = (1.0, 9.0, 0.0)


class LaterClock(SystemClock):
    """Its wall clock is ahead of that of the machine."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s

    def wall_s(self) -> float:
        return super().wall_s() + self.ahead_s


async def said(desk: MemoryBus, tier: FakeTier, *overrides: Override, sequence: int = 1) -> None:
    desk.publish(stated(overridden(sequence, *overrides)))
    await known_to(tier, sequence)


async def test_a_pinned_answer_needs_no_model_and_says_who_and_why(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(SURE), state=tmp_path)
    await online(stack, device)
    name = device.flow.model.manifest.labels[2]
    await said(desk, device, override("pin", answer=name, context={"line": 7.0}))

    pinned, _ = await ask(device, context={"line": 7.0})
    other, _ = await ask(device, context={"line": 8.0})

    assert (pinned.outcome, pinned.reason, pinned.label) == (Outcome.ANSWERED, Reason.RULE, 2)
    assert (pinned.hops[0].rule, pinned.hops[0].overrides) == ("override:pin-1", ("pin-1",))
    assert pinned.notice.startswith(f"override pin-1 (answers {name}) by kim@desk since 2026")
    assert device.backends[0].num_runs == 1
    assert (other.label, other.notice, other.hops[0].overrides) == (0, "", ())
    assert [record.rule for record in device.log.records] == ["override:pin-1", ""]
    assert device.counted('tierwise_edge_overrides_total{kind="pin"}') == 1


async def test_a_tier_is_made_to_answer(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(SURE), state=tmp_path)
    await online(stack, device, gateway(broker), cloud(broker, NumbersBackend(SECOND)))
    await said(desk, device, override("tier", tier="cloud"))

    answer, _ = await ask(device)

    assert (answer.tier, answer.label) == (Tier.CLOUD, 1)
    assert answer.hops[0].overrides == ("tier-1",)
    assert "has cloud answer" in answer.notice


async def test_a_banned_label_gives_way_and_the_confidence_is_that_of_what_is_left(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend((9.0, 5.0, 0.0)), state=tmp_path)
    await online(stack, device)
    names = device.flow.model.manifest.labels
    await said(desk, device, override("ban", names[0]))

    answer, _ = await ask(device)

    assert (answer.outcome, answer.label, answer.label_name) == (Outcome.ANSWERED, 1, names[1])
    assert answer.confidence == pytest.approx(1 / (1 + 2.718281828**-5), abs=1e-4)
    assert int(answer.outputs["logits"].argmax()) == 1
    assert answer.hops[0].overrides == ("ban-1",)
    assert device.log.records[0].rule == "override:ban-1"
    assert device.log.records[0].seen == ""


async def test_what_was_sure_of_a_banned_label_climbs(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend((9.0, 0.1, 0.0)), state=tmp_path)
    top = cloud(broker, NumbersBackend((9.0, 0.0, 8.0)))
    await online(stack, device, gateway(broker), top)
    name = device.flow.model.manifest.labels[0]
    # Only the device is told: what comes from above is treated where it arrives.
    await said(desk, device, override("ban", name, scope="device", target=device.identity.site))

    answer, _ = await ask(device)

    assert tiers_that_worked(answer) == ["edge", "regional", "cloud"]
    assert (answer.tier, answer.label) == (Tier.CLOUD, 2)
    assert answer.hops[0].overrides == ("ban-1",)


async def test_without_a_label_that_is_left_there_is_no_answer(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(SURE), state=tmp_path)
    top = cloud(broker)
    await online(stack, device)
    names = device.flow.model.manifest.labels
    await said(desk, device, override("ban", *names))

    alone, _ = await ask(device)
    await online(stack, gateway(broker), top)
    await eventually(lambda: device.uplink and device.uplink.choose())
    above, _ = await ask(device, request_id="q2")

    assert (alone.outcome, alone.label) == (Outcome.FAILED, None)
    assert (above.outcome, above.reason) in (
        (Outcome.ABSTAINED, Reason.OVERRIDE),
        (Outcome.FAILED, Reason.OVERRIDE),
    )
    assert above.outputs == {}


async def test_labels_are_boosted_replaced_and_kept_back_after_the_ensemble(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device = edge(broker, NumbersBackend(UNSURE), state=tmp_path)
    await online(stack, device, gateway(broker), cloud(broker, NumbersBackend(SECOND)))
    names = device.flow.model.manifest.labels
    await said(desk, device, override("replace", names[1], answer=names[2]))
    replaced, _ = await ask(device)
    await said(desk, device, override("withhold", names[1], below=0.5), sequence=2)
    sure, _ = await ask(device)
    await said(desk, device, override("withhold", names[1]), sequence=3)
    withheld, _ = await ask(device)
    await said(desk, device, override("boost", names[2], amount=20.0), sequence=4)
    boosted, _ = await ask(device)
    await said(desk, device, sequence=5)
    after, _ = await ask(device)

    assert (replaced.tier, replaced.label, replaced.label_name) == (Tier.CLOUD, 2, names[2])
    assert int(replaced.outputs["logits"].argmax()) == 2
    assert (sure.label, sure.notice) == (1, "")
    assert (withheld.outcome, withheld.reason) == (Outcome.ABSTAINED, Reason.OVERRIDE)
    assert (withheld.label, withheld.outputs, withheld.tier) == (None, {}, None)
    assert "keeps" in withheld.notice
    assert (boosted.tier, boosted.label) == (Tier.EDGE, 2)
    assert (after.tier, after.label, after.notice) == (Tier.CLOUD, 1, "")


async def test_it_holds_over_a_restart_and_ends_by_itself(
    broker: MemoryBroker, desk: MemoryBus, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        device = edge(broker, NumbersBackend(SURE), state=tmp_path)
        await online(stack, device)
        name = device.flow.model.manifest.labels[0]
        await said(desk, device, override("ban", name, lasts_s=1000))
        assert device.switch is not None
        await eventually(lambda: device.switch and device.switch.shown()["is_latched"])
    assert len(ControlLatch(tmp_path, "r").read_heard()) == 1

    clock = LaterClock(500)
    offline = edge(MemoryBroker(), NumbersBackend(SURE), state=tmp_path, clock=clock)
    async with AsyncExitStack() as stack:
        await online(stack, offline)
        before, _ = await ask(offline)
        clock.ahead_s = 1001
        after, _ = await ask(offline, request_id="again")

    assert (before.label, after.label) == (1, 0)


async def test_a_gateway_takes_back_what_has_ended(
    broker: MemoryBroker, desk: MemoryBus, stack: AsyncExitStack, tmp_path: Path
) -> None:
    device, above = edge(broker, state=tmp_path / "e"), gateway(broker, state=tmp_path / "g")
    await online(stack, device, above)
    desk.publish(stated(overridden(7, override("ban", "cat", wall_s=1_700_000_000.0))))

    await known_to(device, 8)
    assert device.switch is not None
    assert device.switch.known["r"].overrides == ()
    assert device.switch.known["r"].why == "time is over"
