"""Whether a benchmark can be believed: signs of heat, and of other programs on the machine.

Values in, sentences out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hardware_profiles.measurement import BatchTimes
from hardware_profiles.state import State

# One thread that is never made to wait uses as much processor time as passes.
MIN_CPU_SHARE = 0.9
# How often a second another program may take the processor; the kernel's own work does at times.
MAX_PREEMPTED_PER_S = 50.0
MAX_DRIFT = 1.1
MIN_CLOCK_SHARE = 0.9


class Judgement(NamedTuple):
    """What is to be told of a benchmark."""

    is_contended: bool
    is_throttled: bool
    notes: tuple[str, ...]


def judge(
    *,
    states: Sequence[State],
    batches: Sequence[BatchTimes],
    cpu_share: float,
    num_preempted: int,
    measured_s: float,
    throttle_c: float | None = None,
) -> Judgement:
    """Looks for what makes figures worse than they are on a cool and idle machine.

    Args:
        states: of the host while it ran, in order.
        batches: what was timed.
        cpu_share: processor time per time.
        num_preempted: involuntary context switches.
        measured_s: how long all runs took.
        throttle_c: temperature from which the device lowers its clocks, where that is known.
    """
    waits = _contention(cpu_share, num_preempted, measured_s)
    heat = _heat(states, throttle_c)
    drift = [
        f"with batch {one.batch}, runs became slower: {one.first_half_ms:.3g} ms in the first "
        f"half, {one.second_half_ms:.3g} ms in the second"
        for one in batches
        if one.second_half_ms > one.first_half_ms * MAX_DRIFT
    ]
    cold = [
        f"with batch {one.batch}, the warm-up did not become steady"
        for one in batches
        if not one.is_warm
    ]
    return Judgement(bool(waits), bool(heat), (*waits, *heat, *drift, *cold))


def _contention(cpu_share: float, num_preempted: int, measured_s: float) -> list[str]:
    notes = []
    if cpu_share < MIN_CPU_SHARE:
        notes.append(
            f"the machine was busy: the model had a processor in {cpu_share:.0%} of the time only"
        )
    if measured_s > 0 and num_preempted / measured_s > MAX_PREEMPTED_PER_S:
        notes.append(
            f"the machine was busy: other programs took the processor away {num_preempted} times "
            f"in {measured_s:.1f} s"
        )
    return notes


def _heat(states: Sequence[State], throttle_c: float | None) -> list[str]:
    notes = []
    flags = sorted({word for state in states for word in state.throttled_now})
    if flags:
        notes.append(f"the firmware held the processor back: {', '.join(flags)}")
    clocks = [state.clock_mhz for state in states if state.clock_mhz is not None]
    if clocks and clocks[-1] < max(clocks) * MIN_CLOCK_SHARE:
        notes.append(f"the clock fell from {max(clocks):.0f} to {clocks[-1]:.0f} MHz")
    hottest = max((s.temperature_c for s in states if s.temperature_c is not None), default=None)
    if hottest is not None and throttle_c is not None and hottest >= throttle_c:
        notes.append(
            f"it was {hottest:.0f} degrees C hot; from {throttle_c:.0f} on clocks are lowered"
        )
    return notes
