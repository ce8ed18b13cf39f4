"""How long an inference may take on a processor that nobody has measured: an interval.

The roofline (Williams, Waterman, Patterson, "Roofline: an insightful visual performance model",
2009): no run is faster than its operations at the peak rate, nor than its bytes at the rate of the
memory. That is the lower end, with operations of 8 bits at ``INT8_GAIN`` times the rate. At the
upper end they gain nothing, every operator adds what an engine spends around it, and all of it
takes ``ERROR_FACTOR`` times as long.

What the factor rests on: on one x86 machine with AVX-512 and VNNI, the three bundled models took
0.3 to 1.2 times what the upper end is before the factor. It has not been tried on ARM; the rest of
it is room for in-order cores and lowered clocks.
"""

from __future__ import annotations

import msgspec

# What ONNX Runtime spends on one operator beside its arithmetic, on a core of 3 GHz; on a slower
# clock it takes longer. An estimate, from small networks on x86: 9 us for some five operators.
PER_OP_US = 2.0
_OP_CLOCK_MHZ = 3000.0
# Instructions that multiply bytes and add four products at once, such as VNNI and SDOT.
INT8_GAIN = 4.0
ERROR_FACTOR = 5.0


class Work(msgspec.Struct, frozen=True):
    """What one inference is: operations (a multiply-add is two), bytes of weights, operators.

    ``num_flops`` are of fp32, ``num_int8_ops`` of 8 bits.
    """

    num_flops: float
    num_int8_ops: float
    num_bytes: float
    num_ops: int


class Speed(msgspec.Struct, frozen=True):
    """What a processor can do: fp32 operations and bytes per second of one thread, its clock."""

    flops: float
    bytes_s: float
    clock_mhz: float


class Latency(msgspec.Struct, frozen=True):
    """An interval in ms; ``is_measured``: from half of the runs to 99 in 100 of them."""

    low_ms: float
    high_ms: float
    is_measured: bool = False


def estimate(work: Work, speed: Speed) -> Latency:
    """The interval that the latency of one inference lies in."""
    memory_s = work.num_bytes / speed.bytes_s
    fast_s = (work.num_flops + work.num_int8_ops / INT8_GAIN) / speed.flops
    slow_s = (work.num_flops + work.num_int8_ops) / speed.flops
    around_s = work.num_ops * PER_OP_US * 1e-6 * _OP_CLOCK_MHZ / speed.clock_mhz
    low_s = max(fast_s, memory_s)
    return Latency(low_s * 1e3, (max(slow_s, memory_s) + around_s) * ERROR_FACTOR * 1e3)
