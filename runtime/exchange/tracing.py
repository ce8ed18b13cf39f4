"""Spans of what happens to a request here, as children of what happened to it below.

    request        a tier's whole work on it; child of the caller's span, or of the hop from below
      inference    the tier's own model; its children ``member`` are those of an ensemble
      hop          one message to the tier above, also a hedge; the request above is its child
        late_answer  the reply that came when nobody waited any more
      delivery     one sending of its escalation from the outbox; child of the first request

Rules of this file:
  * the context of a request in hand is that of its span here, so that whoever passes it on, at
    once or days later, passes on the right parent;
  * spans say who, which model, why and how long. No inputs, no outputs, no ids of requests;
  * what may not leave the device has spans that do not either: they are counted.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from runtime import topics
from runtime.adapters.tracing_metrics import TracingMetrics
from runtime.core.tracing import (
    Attribute,
    Span,
    TraceContext,
    context_text,
    new_context,
    parse_context,
    span_id_of,
)
from runtime.deadline import Deadline
from runtime.local_model import LocalResult
from runtime.manifest import ModelManifest
from runtime.messages import Answer, InferenceRequest, Outcome, Reason, Residency, Tier
from runtime.ports import Clock, OutboxItem, SpanRecorder

_ID_BITS = 192
_SPAN_ID_BITS = 64


class OpenSpan:
    """Something that goes on; ``end`` it once, what comes after that is ignored."""

    __slots__ = ("_attributes", "_is_over", "_kind", "_name", "_parent_id", "_residency",
                 "_started_s", "_tracer", "context")  # fmt: skip

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        kind: str,
        *,
        context: TraceContext,
        parent_id: str,
        residency: Residency,
        attributes: dict[str, Attribute],
    ) -> None:
        self._tracer, self._name, self._kind, self.context = tracer, name, kind, context
        self._parent_id, self._residency, self._attributes = parent_id, residency, attributes
        self._started_s = tracer.clock.monotonic_s()
        self._is_over = False

    @property
    def traceparent(self) -> str:
        """What its children are told."""
        return context_text(self.context)

    def end(self, *, is_failed: bool = False, **attributes: Attribute) -> None:
        """It is over; ``attributes`` say how that went, after ``tierwise.``."""
        if self._is_over:
            return
        self._is_over = True
        self.past(self._name, self._started_s, attributes, is_failed=is_failed)

    def past(
        self,
        name: str,
        started_s: float,
        attributes: dict[str, Attribute],
        *,
        ended_s: float | None = None,
        is_failed: bool = False,
        is_child: bool = False,
    ) -> TraceContext:
        """Records this, or something that went on within it, between two monotonic instants."""
        tracer, context, parent_id = self._tracer, self.context, self._parent_id
        if is_child:
            parent_id, context = context.span_id, tracer.child_of(context)
        now_s = tracer.clock.monotonic_s()
        ended_s = now_s if ended_s is None else ended_s
        own = {} if is_child else self._attributes
        span = Span(
            name,
            "internal" if is_child else self._kind,
            context.trace_id,
            context.span_id,
            parent_id,
            round((tracer.clock.wall_s() - (now_s - started_s)) * 1e9),
            max(0, round((ended_s - started_s) * 1e9)),
            {f"tierwise.{key}": value for key, value in (tracer.said | own | attributes).items()},
            is_failed,
        )
        tracer.take(span, self._residency)
        return context


class Tracer:
    """Makes the spans of one tier. Lives on one event loop.

    Args:
        tier: ours.
        site: our id.
        recorder: takes what may be exported.
        clock: spans are measured by the monotonic one and dated by the other.
        metrics: counts what may not be exported.
        share: of the requests that enter here, those that are traced.
        chooser: ids come from it; nothing secret depends on them.
    """

    def __init__(
        self,
        tier: Tier,
        site: str,
        recorder: SpanRecorder,
        *,
        clock: Clock,
        metrics: TracingMetrics,
        share: float,
        chooser: random.Random | None = None,
    ) -> None:
        self.said: dict[str, Attribute] = {"tier": tier.value, "site": site}
        self._recorder, self.clock, self._metrics = recorder, clock, metrics
        self._share = share
        self._draw = (chooser or random.SystemRandom()).getrandbits

    async def traced(
        self,
        request: InferenceRequest,
        deadline: Deadline,
        manifest: ModelManifest,
        answer: Callable[[InferenceRequest, Deadline], Awaitable[Answer]],
    ) -> Answer:
        """The answer, with a span of all that led to it; audits are no requests and have none."""
        if request.audit:
            return await answer(request, deadline)
        above = parse_context(request.traceparent)
        context = new_context(self._draw(_ID_BITS), self._share) if above is None else above
        if not context.is_sampled:
            if above is None:
                # So that nobody above draws again.
                told = context_text(context)
                request = msgspec.structs.replace(request, traceparent=told)
            return await answer(request, deadline)
        own = context if above is None else self.child_of(context)
        span = OpenSpan(
            self,
            "request",
            "server",
            context=own,
            parent_id="" if above is None else above.span_id,
            residency=request.residency,
            attributes={
                "model": manifest.name,
                "version": manifest.version,
                "remaining_ms": round(deadline.remaining_ms(self.clock.monotonic_s()), 3),
            },
        )
        request = msgspec.structs.replace(request, traceparent=span.traceparent)
        try:
            given = await answer(request, deadline)
        except BaseException:
            span.end(outcome="cancelled", is_failed=True)
            raise
        is_failed = given.outcome is Outcome.FAILED
        span.end(outcome=given.outcome.value, reason=given.reason.value, is_failed=is_failed)
        return given

    async def inferred(
        self,
        request: InferenceRequest,
        manifest: ModelManifest,
        run: Callable[[], Awaitable[LocalResult | Reason]],
    ) -> LocalResult | Reason:
        """What ``run`` gives, with a span of it and of the members of an ensemble."""
        about = {"model": manifest.name, "version": manifest.version}
        span = self._within(request, "inference", "internal", about)
        if span is None:
            return await run()
        outcome, is_failed = "cancelled", True
        try:
            result = await run()
            is_failed = isinstance(result, Reason)
            outcome = result.value if isinstance(result, Reason) else "done"
        finally:
            span.end(outcome=outcome, is_failed=is_failed)
        if isinstance(result, LocalResult):
            for one in result.runs:
                named: dict[str, Attribute] = {"member": one.member}
                span.past("member", one.started_s, named, ended_s=one.ended_s, is_child=True)
        return result

    def hop(self, request: InferenceRequest, gateway: str, remaining_ms: float) -> OpenSpan | None:
        """One message with this request to the tier above; None where it is not traced."""
        if request.audit:
            return None
        about: dict[str, Attribute] = {
            "gateway": gateway,
            "attempt": request.attempt,
            "remaining_ms": round(remaining_ms, 3),
        }
        return self._within(request, "hop", "client", about)

    def delivery(self, item: OutboxItem) -> OpenSpan | None:
        """One sending of an item; None where what it is about was not traced."""
        properties = dict(item.properties)
        context = parse_context(properties.get(topics.TRACEPARENT, ""))
        if context is None or not context.is_sampled:
            return None
        residency = Residency(properties.get(topics.RESIDENCY, Residency.CLOUD))
        about: dict[str, Attribute] = {"attempt": item.attempts}
        return OpenSpan(
            self,
            "delivery",
            "producer",
            context=self.child_of(context),
            parent_id=context.span_id,
            residency=residency,
            attributes=about,
        )

    def child_of(self, context: TraceContext) -> TraceContext:
        """The context of a new span of the same trace."""
        return context._replace(span_id=span_id_of(self._draw(_SPAN_ID_BITS)))

    def take(self, span: Span, residency: Residency) -> None:
        """Records a span, unless it may not leave."""
        if residency is Residency.DEVICE:
            self._metrics.count_spans("kept_local")
        else:
            self._recorder.record(span)

    def _within(
        self, request: InferenceRequest, name: str, kind: str, about: dict[str, Any]
    ) -> OpenSpan | None:
        context = parse_context(request.traceparent)
        if request.audit or context is None or not context.is_sampled:
            return None
        return OpenSpan(
            self,
            name,
            kind,
            context=self.child_of(context),
            parent_id=context.span_id,
            residency=request.residency,
            attributes=about,
        )
