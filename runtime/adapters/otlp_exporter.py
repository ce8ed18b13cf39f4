"""Sends spans as OTLP over HTTP with OpenTelemetry's own exporter (the extra ``tracing``).

The exporter obeys the environment that OpenTelemetry specifies, such as
``OTEL_EXPORTER_OTLP_HEADERS`` and ``OTEL_EXPORTER_OTLP_CERTIFICATE``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.core.tracing import Span
from runtime.errors import StartError
from runtime.version import software

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

# Of one request, with the tries again that the exporter makes by itself.
EXPORT_TIMEOUT_S = 5.0


class OtlpExporter:
    """One endpoint. ``export`` blocks: call it in a thread.

    Args:
        endpoint: the URL that takes traces.
        resource: what is said of the process, once for all of its spans.

    Raises:
        StartError: the extra is not installed.
    """

    def __init__(self, endpoint: str, resource: dict[str, str]) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 an extra
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 an extra
        except ImportError as error:
            raise StartError(
                "tracing.endpoint needs OpenTelemetry: pip install 'tierwise[tracing]', or leave "
                f"the setting empty ({error})"
            ) from error
        # It logs every failure; ours are logged once, by the shipper.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._resource = Resource(
            {"service.name": "tierwise", "service.version": software(), **resource}
        )
        self._exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT_S)

    def export(self, spans: Sequence[Span]) -> bool:
        """Whether the endpoint has taken them all."""
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 an extra

        result = self._exporter.export([self._readable(span) for span in spans])
        return result is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Ends an export that waits for its next try."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: Span) -> ReadableSpan:
        from opentelemetry import trace  # noqa: PLC0415 an extra
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 an extra

        def context(span_id: str) -> trace.SpanContext:
            return trace.SpanContext(
                int(span.trace_id, 16),
                int(span_id, 16),
                is_remote=False,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )

        status = trace.StatusCode.ERROR if span.is_failed else trace.StatusCode.UNSET
        return ReadableSpan(
            span.name,
            context=context(span.span_id),
            parent=context(span.parent_id) if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            kind=trace.SpanKind[span.kind.upper()],
            status=trace.Status(status),
            start_time=span.start_ns,
            end_time=span.start_ns + span.duration_ns,
        )
