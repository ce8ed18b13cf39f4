"""The model of a tier: members side by side, late and broken ones left out, nothing held up."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from fakes.hierarchy import ask, cloud, edge
from fakes.tiers import (
    SURE,
    NumbersBackend,
    request,
)
from fakes.waiting import eventually
from runtime.adapters.memory_bus import MemoryBroker
from runtime.deadline import Deadline
from runtime.errors import BackendError
from runtime.messages import (
    Outcome,
    Reason,
    Tier,
)


async def test_an_ensemble_answers_with_the_members_that_are_there() -> None:
    broker = MemoryBroker()
    members = (
        NumbersBackend(SURE),
        NumbersBackend(is_broken=True),
        NumbersBackend(SURE, release=threading.Event()),
    )
    async with cloud(broker, *members) as top:
        answer, _ = await ask(top, budget_ms=1000)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.PARTIAL_ENSEMBLE)
    assert (answer.tier, answer.label) == (Tier.CLOUD, 0)


async def test_one_that_was_closed_meanwhile_fails_as_a_model_does() -> None:
    # Two members: they run in threads, which a closed model has no more.
    async with cloud(MemoryBroker(), NumbersBackend(SURE), NumbersBackend(SURE)) as top:
        await asyncio.to_thread(top.flow.model.close)
        inputs = request().inputs
        with pytest.raises(BackendError, match="is closed"):
            await top.flow.model.infer(inputs, Deadline.after(time.monotonic(), 1000))


async def test_a_stuck_member_holds_up_no_request_but_its_own_part() -> None:
    members = (NumbersBackend(SURE), NumbersBackend(SURE, release=threading.Event()))
    async with cloud(MemoryBroker(), *members) as top:
        answers = [(await ask(top, 500, request_id=f"q{number}"))[0] for number in range(5)]

    assert {answer.reason for answer in answers} == {Reason.PARTIAL_ENSEMBLE}
    assert members[0].num_runs == 5


async def test_a_large_batch_for_a_quick_model_does_not_hold_up_the_event_loop() -> None:
    slow = NumbersBackend(SURE, release=threading.Event())
    async with edge(MemoryBroker(), slow, inline=True) as device:
        large = np.zeros((1000, 2), np.float32)
        asked = asyncio.create_task(ask(device, 5000, inputs={"x": large}))
        await eventually(lambda: slow.num_runs == 1)
        was_done = asked.done()

        assert slow.release is not None
        slow.release.set()
        answer, _ = await asked

    assert not was_done
    assert answer.outputs["logits"].shape == (1000, 3)


async def test_a_request_whose_time_ran_out_before_its_turn_is_not_computed() -> None:
    async with edge(MemoryBroker(), inline=True) as device:
        answer = await device.flow.answer(request(), Deadline.after(time.monotonic(), -1))

    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.DEADLINE)
    assert device.backends[0].num_runs == 0


async def test_an_ensemble_of_all_members_answers() -> None:
    async with cloud(MemoryBroker(), NumbersBackend(SURE), NumbersBackend(SURE)) as top:
        answer, _ = await ask(top)

    assert (answer.outcome, answer.reason) == (Outcome.ANSWERED, Reason.CONFIDENT)
    assert answer.outputs["logits"].shape == (1, 3)


async def test_the_agreement_of_an_ensemble_is_the_share_that_chose_its_label() -> None:
    members = (NumbersBackend(SURE), NumbersBackend(SURE), NumbersBackend((0.0, 1.0, 0.0)))
    async with cloud(MemoryBroker(), *members) as top:
        result = await top.model.infer(request().inputs, Deadline.after(time.monotonic(), 5000))

    assert result.confidence.agreement == pytest.approx(2 / 3)


async def test_an_ensemble_without_a_usable_member_fails() -> None:
    broken = NumbersBackend((float("nan"),) * 3)
    async with cloud(MemoryBroker(), broken, NumbersBackend(is_broken=True)) as top:
        answer, _ = await ask(top)

    assert (answer.outcome, answer.reason) == (Outcome.FAILED, Reason.LOCAL_FAILED)


async def test_a_member_that_cannot_change_the_label_is_not_waited_for() -> None:
    stuck = NumbersBackend(SURE, release=threading.Event())
    members = (NumbersBackend(SURE), NumbersBackend(SURE), stuck)
    async with cloud(MemoryBroker(), *members) as top:
        answer, took_ms = await ask(top, budget_ms=60_000)

    assert (answer.outcome, answer.reason) == (Outcome.ANSWERED, Reason.CONFIDENT)
    assert took_ms < 10_000


async def test_a_member_that_is_broken_is_told_although_the_vote_is_decided() -> None:
    members = (NumbersBackend(SURE), NumbersBackend(SURE), NumbersBackend(is_broken=True))
    async with cloud(MemoryBroker(), *members) as top:
        answer, _ = await ask(top)

    assert (answer.outcome, answer.reason) == (Outcome.DEGRADED, Reason.PARTIAL_ENSEMBLE)


async def test_what_a_run_will_take_counts_the_work_before_it_and_is_forgotten_when_idle() -> None:
    slow = NumbersBackend(SURE, delay_s=0.05)
    async with cloud(MemoryBroker(), slow) as top:
        inputs = request().inputs
        before_ms = top.model.expected_ms(inputs)
        for number in range(3):
            await ask(top, request_id=f"q{number}")
        idle_ms = top.model.expected_ms(inputs)
        asked = asyncio.create_task(ask(top, request_id="q9"))
        await eventually(lambda: slow.num_runs == 4)
        busy_ms = top.model.expected_ms(inputs)
        await asked

    assert before_ms == 0
    assert idle_ms > 5
    assert busy_ms == 2 * idle_ms
