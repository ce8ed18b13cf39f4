"""The margin of a tier follows what its event loop does."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fakes.clock import FakeClock
from fakes.waiting import eventually
from runtime.core.escalation import EscalationPolicy
from runtime.core.handover import HALF_LIFE_S
from runtime.deadline import Deadline
from runtime.exchange.handing_over import LOOK_EVERY_S, HandingOver

STATED = EscalationPolicy(accept_at=0.8, min_chance=0.4, margin_ms=5.0)


def handing_over() -> tuple[HandingOver, FakeClock]:
    clock = FakeClock()
    return HandingOver(STATED, clock), clock


def test_the_policy_is_the_stated_one_while_all_runs_in_time() -> None:
    over, clock = handing_over()

    over.ended(Deadline.after(clock.monotonic_s(), 3.0))

    assert over.policy() is STATED


def test_what_ends_late_makes_the_next_wait_shorter() -> None:
    over, clock = handing_over()
    deadline = Deadline.after(clock.monotonic_s(), 100.0)
    before = over.until(deadline)

    clock.advance(0.1)
    over.ended(before)

    assert before.remaining_ms(clock.monotonic_s()) < 0
    assert over.policy().margin_ms == pytest.approx(13.0)
    assert over.policy().accept_at == STATED.accept_at
    assert over.until(deadline).at_s < before.at_s


def test_the_margin_goes_back_when_nothing_is_late_any_more() -> None:
    over, clock = handing_over()
    over.ended(Deadline(clock.monotonic_s() - 1.0))
    assert over.policy().margin_ms > STATED.margin_ms

    clock.advance(20 * HALF_LIFE_S)

    assert abs(over.policy().margin_ms - STATED.margin_ms) < 1.0


async def test_a_stall_of_the_event_loop_is_seen_without_any_request() -> None:
    over, clock = handing_over()
    watch = asyncio.create_task(over.watch())
    await asyncio.sleep(0)

    # As if the loop had stood still for a moment longer than the watch sleeps.
    clock.advance(LOOK_EVERY_S + 0.004)
    await eventually(lambda: over.policy().margin_ms > STATED.margin_ms)
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch

    assert 10.0 <= over.policy().margin_ms <= 12.0
