"""Which variants a device can run within limits, and why the others not.

Rules of this file:
  * with no limits and memory enough, the choice is that of ``runtime.core.variants.pick_variant``:
    what people are told here is what a device takes by itself;
  * what is measured counts before what is estimated; of an estimate the slow end counts;
  * what is not known does not satisfy a limit; where nobody set a limit, it is not asked for;
  * a reason is given for each limit that is violated, and for no other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

import msgspec

from runtime.catalogue import Requirements
from runtime.core.roofline import Latency
from runtime.core.variants import missing, rank

# The system and other programs need some memory, too.
MODEL_SHARE_OF_MEMORY = 0.75
_MB = 1_000_000


class Because(StrEnum):
    """Why a variant is refused."""

    LACKS = "lacks"
    MEMORY = "memory"
    MEMORY_LIMIT = "memory_limit"
    ACCURACY = "accuracy"
    ACCURACY_UNKNOWN = "accuracy_unknown"
    TOO_SLOW = "too_slow"
    MAYBE_TOO_SLOW = "maybe_too_slow"
    LATENCY_UNKNOWN = "latency_unknown"
    POWER = "power"
    POWER_UNKNOWN = "power_unknown"


class Need(msgspec.Struct, frozen=True):
    """Resident memory in bytes that a process with the model takes."""

    num_bytes: int
    is_measured: bool = False


class Candidate(msgspec.Struct, frozen=True):
    """A variant and what is known of it on the device.

    ``power_w`` is measured with this model. ``caveat`` says what its figures are worth; it decides
    nothing.
    """

    name: str
    size_bytes: int
    memory: Need
    requirements: Requirements = Requirements()
    accuracy: float | None = None
    latency: Latency | None = None
    power_w: float | None = None
    caveat: str = ""


class Device(msgspec.Struct, frozen=True):
    """``memory_bytes`` 0 is not known; ``max_w`` is what the device draws at most."""

    hardware: Collection[str]
    runtimes: Collection[str]
    engines: Mapping[str, str]
    memory_bytes: int = 0
    max_w: float | None = None


class Limits(msgspec.Struct, frozen=True):
    """What a variant has to keep; None is no limit."""

    budget_ms: float | None = None
    min_accuracy: float | None = None
    max_memory_bytes: int | None = None
    power_w: float | None = None


class Reason(msgspec.Struct, frozen=True):
    """One violated limit, in words."""

    because: Because
    text: str


class Fit(msgspec.Struct, frozen=True):
    """``chosen`` is None where nothing fits; variants without reasons fit."""

    chosen: str | None
    reasons: dict[str, tuple[Reason, ...]]


def fit(candidates: Collection[Candidate], device: Device, limits: Limits) -> Fit:
    """The variant that the device would take of those within the limits."""
    reasons = {one.name: refusals(one, device, limits) for one in candidates}
    fitting = [one for one in candidates if not reasons[one.name]]
    chosen = min(
        fitting, key=lambda one: rank(one.name, one.requirements, one.size_bytes), default=None
    )
    return Fit(chosen.name if chosen else None, reasons)


def refusals(one: Candidate, device: Device, limits: Limits) -> tuple[Reason, ...]:
    """Why a variant may not run there; nothing where it may."""
    lack = missing(one.requirements, device.hardware, device.runtimes, device.engines)
    reasons = [Reason(Because.LACKS, f"needs {', '.join(lack)}")] if lack else []
    reasons += _memory(one.memory, device, limits)
    reasons += _accuracy(one, limits)
    reasons += _latency(one.latency, limits)
    reasons += _power(one, device, limits)
    return tuple(reasons)


def _memory(need: Need, device: Device, limits: Limits) -> list[Reason]:
    how = "measured" if need.is_measured else "estimated"
    told = f"needs {need.num_bytes / _MB:.0f} MB of memory ({how})"
    reasons = []
    room = device.memory_bytes * MODEL_SHARE_OF_MEMORY
    if device.memory_bytes and need.num_bytes > room:
        reasons.append(
            Reason(
                Because.MEMORY,
                f"{told}; the device has {device.memory_bytes / _MB:.0f} MB, of which a model may "
                f"take {room / _MB:.0f} MB",
            )
        )
    if limits.max_memory_bytes is not None and need.num_bytes > limits.max_memory_bytes:
        allowed = limits.max_memory_bytes / _MB
        reasons.append(Reason(Because.MEMORY_LIMIT, f"{told}; the limit is {allowed:.0f} MB"))
    return reasons


def _accuracy(one: Candidate, limits: Limits) -> list[Reason]:
    if limits.min_accuracy is None:
        return []
    if one.accuracy is None:
        return [Reason(Because.ACCURACY_UNKNOWN, "nobody has measured its accuracy")]
    if one.accuracy < limits.min_accuracy:
        told = f"is right in {one.accuracy:.2%}; {limits.min_accuracy:.2%} are asked for"
        return [Reason(Because.ACCURACY, told)]
    return []


def _latency(latency: Latency | None, limits: Limits) -> list[Reason]:
    if limits.budget_ms is None:
        return []
    if latency is None:
        return [
            Reason(
                Because.LATENCY_UNKNOWN,
                "its latency there is not known: measure it with `tierwise hardware bench`",
            )
        ]
    if latency.high_ms <= limits.budget_ms:
        return []
    budget = f"the budget is {limits.budget_ms:g} ms"
    if latency.is_measured:
        return [Reason(Because.TOO_SLOW, f"took up to {latency.high_ms:.3g} ms here; {budget}")]
    told = f"takes {latency.low_ms:.3g} to {latency.high_ms:.3g} ms (estimated); {budget}"
    if latency.low_ms > limits.budget_ms:
        return [Reason(Because.TOO_SLOW, told)]
    return [Reason(Because.MAYBE_TOO_SLOW, f"{told}: `tierwise hardware bench` says for sure")]


def _power(one: Candidate, device: Device, limits: Limits) -> list[Reason]:
    if limits.power_w is None:
        return []
    draws = device.max_w if one.power_w is None else one.power_w
    if draws is None:
        return [Reason(Because.POWER_UNKNOWN, "nobody has measured what the device draws")]
    if draws > limits.power_w:
        how = "the device draws at most" if one.power_w is None else "it was measured to draw"
        return [Reason(Because.POWER, f"{how} {draws:g} W; {limits.power_w:g} W are allowed")]
    return []
