"""The exchange of what answers, between two requests."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from fakes.tiers import SURE, FakeTier, NumbersBackend, request
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.deadline import Deadline
from runtime.exchange.serving import Served, Serving
from runtime.messages import Answer, Outcome, Tier


async def ask(serving: Serving) -> Answer:
    with serving.using() as served:
        clock = served.flow._clock
        return await served.flow.answer(request(), Deadline.after(clock.monotonic_s(), 5000))


async def test_a_request_is_finished_by_the_model_that_began_it(tmp_path: Path) -> None:
    broker, hold = MemoryBroker(), threading.Event()
    slow = NumbersBackend(SURE, release=hold)
    old = FakeTier(broker, Tier.EDGE, slow, state=tmp_path)
    new = FakeTier(broker, Tier.EDGE, NumbersBackend((0.0, 9.0, 0.0)))
    assert old.switch is not None
    serving = Serving(Served(old.model, old.flow), old.switch)
    serving.start()
    begun = asyncio.create_task(ask(serving))
    await eventually(lambda: slow.num_runs)

    gone = serving.exchange(Served(new.model, new.flow))
    closing = asyncio.create_task(gone.close())
    later = await ask(serving)
    assert not closing.done()
    hold.set()
    earlier = await begun
    await closing

    assert (earlier.outcome, earlier.label) == (Outcome.ANSWERED, 0)
    assert (later.outcome, later.label) == (Outcome.ANSWERED, 1)
    assert gone.watch is not None
    assert gone.watch.cancelled() or gone.watch.cancelling()
    await serving.current.close()


async def test_what_is_exchanged_for_itself_goes_on(tmp_path: Path) -> None:
    tier = FakeTier(MemoryBroker(), Tier.EDGE, NumbersBackend(SURE), state=tmp_path)
    assert tier.switch is not None
    served = Served(tier.model, tier.flow)
    serving = Serving(served, tier.switch)
    serving.start()

    assert serving.exchange(served) is served
    assert (await ask(serving)).outcome is Outcome.ANSWERED
    await served.close()
