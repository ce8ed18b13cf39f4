"""Which variants a device can run, and why the others not."""

from __future__ import annotations

import pytest

from runtime.catalogue import Requirements
from runtime.core.fitting import Because, Candidate, Device, Limits, Need, fit, refusals
from runtime.core.roofline import ERROR_FACTOR, INT8_GAIN, Latency, Speed, Work, estimate

DEVICE = Device(("aarch64",), ("onnxruntime",), {"onnxruntime": "1.20"}, 1_000_000_000, 5.0)
ONE = Candidate("one", 10, Need(100_000_000, is_measured=True), accuracy=0.9)


def told(one: Candidate, limits: Limits, device: Device = DEVICE) -> list[tuple[Because, str]]:
    return [(reason.because, reason.text) for reason in refusals(one, device, limits)]


def timed(low_ms: float, high_ms: float, *, measured: bool) -> Candidate:
    return Candidate("x", 1, Need(1), latency=Latency(low_ms, high_ms, measured))


def test_without_limits_a_variant_that_the_device_can_hold_fits() -> None:
    assert told(ONE, Limits()) == []


def test_what_a_device_lacks_is_named() -> None:
    one = Candidate("gpu", 10, Need(1), Requirements(hardware=("cuda",)))

    assert told(one, Limits()) == [(Because.LACKS, "needs cuda")]


def test_a_model_may_not_take_all_memory() -> None:
    big = Candidate("big", 10, Need(800_000_000))

    assert told(big, Limits()) == [
        (
            Because.MEMORY,
            "needs 800 MB of memory (estimated); the device has 1000 MB, "  # noqa: ISC004
            "of which a model may take 750 MB",
        )
    ]


def test_memory_that_is_not_known_refuses_nothing() -> None:
    device = Device((), (), {})

    assert told(Candidate("big", 10, Need(10**15)), Limits(), device) == []


def test_a_limit_of_memory_is_told_beside_that_of_the_device() -> None:
    assert told(ONE, Limits(max_memory_bytes=50_000_000)) == [
        (Because.MEMORY_LIMIT, "needs 100 MB of memory (measured); the limit is 50 MB")
    ]


@pytest.mark.parametrize(
    ("accuracy", "because"),
    [(None, Because.ACCURACY_UNKNOWN), (0.89, Because.ACCURACY), (0.9, None)],
)
def test_accuracy(accuracy: float | None, because: Because | None) -> None:
    one = Candidate("x", 1, Need(1), accuracy=accuracy)

    found = [reason for reason, _ in told(one, Limits(min_accuracy=0.9))]
    assert found == [because] * (because is not None)


@pytest.mark.parametrize(
    ("one", "because", "text"),
    [
        (ONE, Because.LATENCY_UNKNOWN, "measure it"),
        (timed(5, 11, measured=True), Because.TOO_SLOW, "took up to 11 ms here; the budget is 10"),
        (timed(11, 110, measured=False), Because.TOO_SLOW, "11 to 110 ms (estimated)"),
        (timed(5, 50, measured=False), Because.MAYBE_TOO_SLOW, "says for sure"),
    ],
)
def test_latency_over_the_budget(one: Candidate, because: Because, text: str) -> None:
    ((found, said),) = told(one, Limits(budget_ms=10))

    assert found == because
    assert text in said


def test_latency_within_the_budget_fits_measured_or_not() -> None:
    assert told(timed(1, 10, measured=True), Limits(budget_ms=10)) == []
    assert told(timed(1, 10, measured=False), Limits(budget_ms=10)) == []


def test_power_measured_with_the_model_counts_before_what_the_device_draws() -> None:
    one = Candidate("x", 1, Need(1), power_w=3.0)

    assert told(ONE, Limits(power_w=4)) == [
        (Because.POWER, "the device draws at most 5 W; 4 W are allowed")
    ]
    assert told(one, Limits(power_w=4)) == []
    assert told(one, Limits(power_w=2)) == [
        (Because.POWER, "it was measured to draw 3 W; 2 W are allowed")
    ]


def test_power_that_nobody_knows_does_not_satisfy_a_limit() -> None:
    assert told(ONE, Limits(power_w=4), Device((), (), {})) == [
        (Because.POWER_UNKNOWN, "nobody has measured what the device draws")
    ]


def test_nothing_fits_where_there_is_nothing() -> None:
    assert fit((), DEVICE, Limits()).chosen is None


def test_an_estimate_is_bound_by_arithmetic_or_by_memory_whichever_is_slower() -> None:
    speed = Speed(flops=1e9, bytes_s=1e9, clock_mhz=3000)

    assert estimate(Work(1e6, 0, 1e3, 0), speed) == Latency(1.0, ERROR_FACTOR)
    assert estimate(Work(1e3, 0, 1e6, 0), speed) == Latency(1.0, ERROR_FACTOR)


def test_bytes_are_multiplied_faster_or_not() -> None:
    speed = Speed(flops=1e9, bytes_s=1e9, clock_mhz=3000)

    assert estimate(Work(0, 1e6, 1, 0), speed) == Latency(1 / INT8_GAIN, ERROR_FACTOR)


def test_operators_cost_more_on_a_slower_clock() -> None:
    work = Work(1.0, 0.0, 1.0, 100)

    fast = estimate(work, Speed(1e9, 1e9, 3000))
    slow = estimate(work, Speed(1e9, 1e9, 1000))
    assert slow.high_ms == pytest.approx(3 * fast.high_ms, rel=1e-3)
