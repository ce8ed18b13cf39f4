"""W3C trace context, and who is traced: pure values, the same at every tier.

A trace is drawn once, where the request enters. What is passed on says so in its flags, and the
tiers above obey; of a caller that brings its own context, the sampled flag is obeyed, too.

Source: W3C Trace Context, level 2 (version 00 of ``traceparent``; the random part of a trace id are
its last seven bytes, by which ``is_drawn`` decides, as OpenTelemetry's consistent sampling does).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

# Bits of a trace id that are random.
_RANDOM_BITS = 56
_SAMPLED = 0x01
# Of a trace id that was drawn here, its last seven bytes are random.
_RANDOM = 0x02
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_UNKNOWN_VERSION = "ff"
Attribute = str | int | float | bool


class TraceContext(NamedTuple):
    """Whose child the next span is: 32 and 16 hex digits, and whether the trace is recorded."""

    trace_id: str
    span_id: str
    is_sampled: bool


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Something that took time; ``start_ns`` is nanoseconds since 1970, ``parent_id`` may be empty.

    ``kind`` is that of OpenTelemetry: ``server``, ``client``, ``producer`` or ``internal``.
    """

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    duration_ns: int
    attributes: dict[str, Attribute] = {}
    is_failed: bool = False


def parse_context(text: str) -> TraceContext | None:
    """The context in a ``traceparent``; None where it is malformed, which W3C has us ignore."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags = found.groups()
    if version == _UNKNOWN_VERSION or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def context_text(context: TraceContext) -> str:
    """The ``traceparent`` of a context, version 00."""
    flags = _RANDOM | (_SAMPLED if context.is_sampled else 0)
    return f"00-{context.trace_id}-{context.span_id}-{flags:02x}"


def is_drawn(trace_id: str, share: float) -> bool:
    """Whether a trace is among the ``share`` (0 to 1) that is recorded: the same everywhere."""
    return int(trace_id[-_RANDOM_BITS // 4 :], 16) < share * (1 << _RANDOM_BITS)


def new_context(random_id: int, share: float) -> TraceContext:
    """The context of a trace that begins here; ``random_id`` are 192 random bits."""
    trace_id = f"{(random_id >> 64) or 1:032x}"
    return TraceContext(trace_id, span_id_of(random_id), is_drawn(trace_id, share))


def span_id_of(random_id: int) -> str:
    """The id of a span, of the last 64 of some random bits; never all zeros, which is no id."""
    return f"{(random_id & (1 << 64) - 1) or 1:016x}"


def sampled_trace_id(text: str) -> str:
    """The trace id of a ``traceparent`` whose trace is recorded; empty otherwise."""
    context = parse_context(text) if text else None
    return context.trace_id if context is not None and context.is_sampled else ""
