"""An OpenTelemetry collector in a few lines: takes OTLP over HTTP, and can be away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from runtime.adapters.http_server import serving


@dataclass(frozen=True)
class Seen:
    """A span as it arrived; ids as hex digits, ``said`` its attributes without their prefix."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    tier: str
    said: dict[str, Any]
    start_ns: int
    end_ns: int
    kind: int


@dataclass
class Collector:
    """What has arrived; ``status`` other than 200 is what it answers instead."""

    spans: list[Seen] = field(default_factory=list)
    num_requests: int = 0
    status: int = 200
    url: str = ""

    def named(self, name: str, tier: str = "") -> list[Seen]:
        return [one for one in self.spans if one.name == name and tier in ("", one.tier)]

    async def take(self, request: web.Request) -> web.Response:
        self.num_requests += 1
        if self.status != 200:
            return web.Response(status=self.status)
        assert request.content_type == "application/x-protobuf"
        body = ExportTraceServiceRequest.FromString(await request.read())
        for group in body.resource_spans:
            resource = {one.key: one.value.string_value for one in group.resource.attributes}
            assert resource["service.name"] == "tierwise"
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(_seen(span, resource["tierwise.tier"]))
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


def _seen(span: Any, tier: str) -> Seen:
    said = {
        one.key.removeprefix("tierwise."): getattr(one.value, one.value.WhichOneof("value"))
        for one in span.attributes
    }
    return Seen(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tier,
        said,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.kind,
    )


@asynccontextmanager
async def collecting(port: int = 0, collector: Collector | None = None) -> AsyncIterator[Collector]:
    """A collector behind real HTTP."""
    collector = collector or Collector()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/traces", collector.take)
    async with serving(app, "127.0.0.1", port) as url:
        collector.url = f"{url}/v1/traces"
        yield collector
