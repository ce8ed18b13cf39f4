"""What is chosen keeps every limit, a wider limit loses nothing, and reasons are the violations."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue import Requirements, Variant
from runtime.core.fitting import (
    MODEL_SHARE_OF_MEMORY,
    Because,
    Candidate,
    Device,
    Limits,
    Need,
    fit,
    refusals,
)
from runtime.core.roofline import Latency, Speed, Work, estimate
from runtime.core.variants import missing, pick_variant
from runtime.errors import ReleaseError
from runtime.manifest import ModelFile

TAGS = ("aarch64", "cuda", "neon")
amounts = st.integers(1, 1000)
shares = st.floats(0, 1)
tag_tuples = st.lists(st.sampled_from(TAGS), unique=True).map(lambda found: tuple(sorted(found)))


@st.composite
def latencies(draw: st.DrawFn) -> Latency:
    low = draw(st.floats(0.01, 100))
    return Latency(low, low * draw(st.floats(1, 10)), draw(st.booleans()))


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    return [
        Candidate(
            name,
            draw(amounts),
            Need(draw(amounts), draw(st.booleans())),
            Requirements(hardware=draw(tag_tuples)),
            draw(st.none() | shares),
            draw(st.none() | latencies()),
            draw(st.none() | st.floats(0.1, 20)),
        )
        for name in draw(st.lists(st.sampled_from("abcd"), unique=True))
    ]


devices = st.builds(
    Device,
    tag_tuples,
    st.just(("onnxruntime",)),
    st.just({"onnxruntime": "1.20"}),
    st.integers(0, 1000),
    st.none() | st.floats(0.1, 20),
)
limits_of = st.builds(
    Limits,
    st.none() | st.floats(0.01, 1000),
    st.none() | shares,
    st.none() | amounts,
    st.none() | st.floats(0.1, 20),
)


def violated(one: Candidate, device: Device, limits: Limits) -> set[str]:
    """The limits that a variant does not keep, said in another way."""
    latency, draws = one.latency, device.max_w if one.power_w is None else one.power_w
    room = device.memory_bytes * MODEL_SHARE_OF_MEMORY
    kept = {
        "lacks": not missing(one.requirements, device.hardware, device.runtimes, device.engines),
        "memory": not device.memory_bytes or one.memory.num_bytes <= room,
        "memory_limit": one.memory.num_bytes <= (limits.max_memory_bytes or 10**9),
        "accuracy": limits.min_accuracy is None
        or (one.accuracy is not None and one.accuracy >= limits.min_accuracy),
        "latency": limits.budget_ms is None
        or (latency is not None and latency.high_ms <= limits.budget_ms),
        "power": limits.power_w is None or (draws is not None and draws <= limits.power_w),
    }
    return {name for name, is_kept in kept.items() if not is_kept}


LIMIT_OF = {
    Because.ACCURACY_UNKNOWN: "accuracy",
    Because.TOO_SLOW: "latency",
    Because.MAYBE_TOO_SLOW: "latency",
    Because.LATENCY_UNKNOWN: "latency",
    Because.POWER_UNKNOWN: "power",
}


@given(candidates(), devices, limits_of)
def test_what_is_chosen_keeps_every_limit_and_is_there_if_anything_does(
    found: list[Candidate], device: Device, limits: Limits
) -> None:
    by_name = {one.name: one for one in found}
    fitting = {name for name, one in by_name.items() if not violated(one, device, limits)}

    chosen = fit(found, device, limits).chosen

    assert (chosen in fitting) if fitting else (chosen is None)


@given(candidates(), devices, limits_of)
def test_reasons_name_exactly_the_violated_limits_once(
    found: list[Candidate], device: Device, limits: Limits
) -> None:
    for one in found:
        told = [LIMIT_OF.get(r.because, r.because.value) for r in refusals(one, device, limits)]
        assert len(set(told)) == len(told)
        assert set(told) == violated(one, device, limits)


@given(candidates(), devices, limits_of, st.sampled_from(Limits.__struct_fields__))
def test_taking_a_limit_away_never_removes_a_fit(
    found: list[Candidate], device: Device, limits: Limits, name: str
) -> None:
    wider = msgspec.structs.replace(limits, **{name: None})
    before, after = fit(found, device, limits), fit(found, device, wider)

    fitting = {one for one, reasons in before.reasons.items() if not reasons}
    assert fitting <= {one for one, reasons in after.reasons.items() if not reasons}


@given(candidates(), devices, limits_of, st.floats(1, 10))
def test_widening_a_limit_never_removes_a_fit(
    found: list[Candidate], device: Device, limits: Limits, factor: float
) -> None:
    wider = Limits(
        limits.budget_ms and limits.budget_ms * factor,
        limits.min_accuracy and limits.min_accuracy / factor,
        limits.max_memory_bytes and round(limits.max_memory_bytes * factor + 1),
        limits.power_w and limits.power_w * factor,
    )
    before, after = fit(found, device, limits), fit(found, device, wider)

    fitting = {one for one, reasons in before.reasons.items() if not reasons}
    assert fitting <= {one for one, reasons in after.reasons.items() if not reasons}


@given(st.dictionaries(st.sampled_from("abcd"), tag_tuples, min_size=1), tag_tuples, amounts)
def test_without_limits_the_choice_is_the_one_that_a_device_makes(
    wanted: dict[str, tuple[str, ...]], hardware: tuple[str, ...], size: int
) -> None:
    variants = {
        name: Variant(
            {
                "manifest.json": ModelFile(f"{number:064x}", size + number % 2),
                "m.onnx": ModelFile("f" * 64, 1),
            },
            Requirements(hardware=tags),
        )
        for number, (name, tags) in enumerate(wanted.items())
    }
    found = [
        Candidate(name, one.size_bytes, Need(1), one.requirements) for name, one in variants.items()
    ]
    device = Device(hardware, (), {})

    try:
        picked = pick_variant(variants, hardware=hardware, runtimes=(), engines={})
    except ReleaseError:
        picked = None
    assert fit(found, device, Limits()).chosen == picked


works = st.builds(
    Work, st.floats(0, 1e12), st.floats(0, 1e12), st.floats(1, 1e9), st.integers(0, 1000)
)


@given(works, st.floats(1, 100))
def test_a_faster_processor_is_never_estimated_slower(work: Work, factor: float) -> None:
    slow = estimate(work, Speed(1e9, 1e9, 1000))
    fast = estimate(work, Speed(1e9 * factor, 1e9 * factor, 1000 * factor))

    assert fast.low_ms <= slow.low_ms
    assert fast.high_ms <= slow.high_ms
    assert slow.low_ms <= slow.high_ms
