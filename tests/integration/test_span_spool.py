"""Spans wait on disk within bounds, and are sent when the endpoint takes them."""

from __future__ import annotations

import asyncio
import builtins
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.clock import FakeClock
from fakes.collector import collecting
from fakes.waiting import eventually
from runtime.adapters.clock import SystemClock
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.otlp_exporter import OtlpExporter
from runtime.adapters.span_spool import ROW_BYTES, SpanSpool, open_spool
from runtime.core.tracing import Span
from runtime.errors import SettingsError, StartError
from runtime.exchange.course import Identity
from runtime.exchange.span_shipping import MAX_UNWRITTEN, Export, SpanShipper, tracing
from runtime.messages import Tier
from runtime.settings import load
from runtime.tracing_settings import TracingSettings

IDENTITY = Identity(Tier.EDGE, "camera-1", "plant")


def span(number: int = 1, **fields: Any) -> Span:
    values: dict[str, Any] = {
        "name": "request",
        "kind": "server",
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "parent_id": "",
        "start_ns": 1_800_000_000_000_000_000,
        "duration_ns": 5_000_000,
        "attributes": {"tierwise.tier": "edge", "tierwise.remaining_ms": 12.5},
    }
    return Span(**values | fields)


@pytest.fixture
def metrics() -> TierMetrics:
    return TierMetrics("edge")


def counted(metrics: TierMetrics, result: str) -> float:
    start = f'tierwise_edge_spans_total{{result="{result}"}} '
    lines = metrics.render()[0].decode().splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


@contextmanager
def spooling(
    folder: Path, metrics: TierMetrics, *, max_bytes: int = 1_000_000, max_age_s: float = 60.0
) -> Iterator[SpanSpool]:
    with open_spool(folder, max_bytes=max_bytes) as file:
        yield SpanSpool(file, max_bytes=max_bytes, max_age_s=max_age_s, metrics=metrics.tracing)


async def numbers(spool: SpanSpool) -> list[int]:
    return [int(one.span.trace_id, 16) for one in await spool.oldest(1000)]


async def test_what_was_kept_outlives_a_restart_and_is_forgotten_when_it_has_arrived(
    tmp_path: Path, metrics: TierMetrics
) -> None:
    with spooling(tmp_path, metrics) as spool:
        await spool.add([span(1), span(2)], 1000.0)
    with spooling(tmp_path, metrics) as spool:
        kept = await spool.oldest(1)
        await spool.sent(kept)

        assert kept[0].span == span(1)
        assert await numbers(spool) == [2]
        assert counted(metrics, "sent") == 1


async def test_over_its_size_the_oldest_are_dropped_and_counted(
    tmp_path: Path, metrics: TierMetrics
) -> None:
    size = len(msgspec.msgpack.encode(span())) + ROW_BYTES
    with spooling(tmp_path, metrics, max_bytes=3 * size) as spool:
        await spool.add([span(number) for number in range(1, 6)], 1000.0)

        assert await numbers(spool) == [3, 4, 5]
        assert counted(metrics, "dropped_size") == 2
        assert f"tierwise_edge_span_spool_bytes {3.0 * size}" in metrics.render()[0].decode()


@pytest.mark.parametrize("later_s", [61.0, -61.0])
async def test_over_its_age_and_from_a_future_that_never_comes_a_span_is_dropped(
    tmp_path: Path, metrics: TierMetrics, later_s: float
) -> None:
    with spooling(tmp_path, metrics) as spool:
        await spool.add([span(1)], 1000.0)
        await spool.add([span(2)], 1000.0 + later_s)

        assert await numbers(spool) == [2]
        assert counted(metrics, "dropped_age") == 1


class Endpoint:
    """Takes spans, or does not."""

    def __init__(self) -> None:
        self.takes = True
        self.spans: list[Span] = []
        self.num_tries = 0

    def export(self, spans: Sequence[Span]) -> bool:
        self.num_tries += 1
        if self.takes:
            self.spans += spans
        return self.takes


def shipper(spool: SpanSpool, export: Export, metrics: TierMetrics) -> SpanShipper:
    return SpanShipper(
        spool,
        export,
        clock=SystemClock(),
        metrics=metrics.tracing,
        interval_s=0.01,
        longest_s=0.05,
    )


async def test_spans_wait_while_the_endpoint_is_away_and_arrive_once(
    tmp_path: Path, metrics: TierMetrics
) -> None:
    endpoint = Endpoint()
    endpoint.takes = False
    with spooling(tmp_path, metrics) as spool:
        first = shipper(spool, endpoint.export, metrics)
        first.start()
        for number in range(1, 301):
            first.record(span(number))
        await eventually(lambda: endpoint.num_tries >= 3)
        await first.close()
        second = shipper(spool, endpoint.export, metrics)
        second.start()
        endpoint.takes = True
        await eventually(lambda: len(endpoint.spans) >= 300)
        await second.close()

    assert [int(one.trace_id, 16) for one in endpoint.spans] == list(range(1, 301))
    assert counted(metrics, "recorded") == counted(metrics, "sent") == 300


async def test_a_close_while_spans_arrive_forgets_what_has_arrived_and_sends_nothing_more(
    tmp_path: Path, metrics: TierMetrics
) -> None:
    endpoint, is_taking, may_go_on = Endpoint(), threading.Event(), threading.Event()

    def export(spans: Sequence[Span]) -> bool:
        is_taking.set()
        may_go_on.wait(10.0)
        return endpoint.export(spans)

    with spooling(tmp_path, metrics) as spool:
        one = shipper(spool, export, metrics)
        await spool.add([span(number) for number in range(1, 301)], SystemClock().wall_s())
        one.start()
        await eventually(is_taking.is_set)
        closing = asyncio.ensure_future(one.close())
        await asyncio.sleep(0)
        may_go_on.set()
        await closing

        assert len(endpoint.spans) == counted(metrics, "sent") == 256
        assert await numbers(spool) == list(range(257, 301))


async def test_a_close_while_spans_are_written_loses_none(
    tmp_path: Path, metrics: TierMetrics
) -> None:
    endpoint, may_go_on = Endpoint(), threading.Event()
    endpoint.takes = False
    with open_spool(tmp_path, max_bytes=1_000_000) as file:
        spool = SpanSpool(file, max_bytes=1_000_000, max_age_s=60.0, metrics=metrics.tracing)
        # The disk is slow: what comes after this waits.
        slow = file.submit(lambda _: may_go_on.wait(10.0))
        one = shipper(spool, endpoint.export, metrics)
        one.record(span(7))
        one.start()
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(one.close())
        await asyncio.sleep(0)
        may_go_on.set()
        await closing

        assert slow.result(1.0)
        assert await numbers(spool) == [7]


async def test_what_was_not_written_at_the_close_is(tmp_path: Path, metrics: TierMetrics) -> None:
    with spooling(tmp_path, metrics) as spool:
        one = shipper(spool, Endpoint().export, metrics)
        one.record(span(7))
        await one.close()

        assert await numbers(spool) == [7]


async def test_a_burst_over_the_bound_is_dropped_and_counted(
    tmp_path: Path, metrics: TierMetrics
) -> None:
    with spooling(tmp_path, metrics) as spool:
        one = shipper(spool, Endpoint().export, metrics)
        for number in range(MAX_UNWRITTEN + 3):
            one.record(span(number + 1))
        await one.close()

    assert counted(metrics, "dropped_burst") == 3
    assert counted(metrics, "recorded") == MAX_UNWRITTEN


async def test_a_disk_that_takes_nothing_costs_spans_and_is_counted(
    tmp_path: Path, metrics: TierMetrics
) -> None:
    with spooling(tmp_path, metrics) as spool:
        one = shipper(spool, Endpoint().export, metrics)
        spool._file.close()
        one.record(span())
        one.start()
        await eventually(lambda: counted(metrics, "dropped_disk") == 1)
        await one.close()


async def test_the_exporter_speaks_otlp() -> None:
    async with collecting() as collector:
        exporter = OtlpExporter(collector.url, {"tierwise.tier": "edge"})
        child = span(2, kind="client", parent_id=f"{9:016x}", is_failed=True)
        assert await asyncio.to_thread(exporter.export, [span(1), child])
        collector.status = 400
        assert not await asyncio.to_thread(exporter.export, [span(3)])
        exporter.close()

    first, second = collector.spans
    assert (first.name, first.trace_id, first.parent_id) == ("request", f"{1:032x}", "")
    assert (second.parent_id, second.kind) == (f"{9:016x}", 3)
    assert first.said == {"tier": "edge", "remaining_ms": 12.5}
    assert first.end_ns - first.start_ns == 5_000_000


async def test_without_the_extra_an_endpoint_is_a_start_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: TierMetrics
) -> None:
    for name in [one for one in sys.modules if one.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    settings = TracingSettings(endpoint="http://127.0.0.1:9/v1/traces")

    with pytest.raises(StartError, match=r"pip install 'tierwise\[tracing\]'"):
        async with tracing(settings, IDENTITY, tmp_path, clock=FakeClock(), metrics=metrics):
            raise AssertionError


async def test_without_an_endpoint_nothing_is_made(tmp_path: Path, metrics: TierMetrics) -> None:
    async with tracing(
        TracingSettings(), IDENTITY, tmp_path, clock=FakeClock(), metrics=metrics
    ) as tracer:
        assert tracer is None
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://h/", "http://", "http://a b", " "])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="endpoint"):
        load(TracingSettings, file=None, environment={}, flags=(f"endpoint={endpoint}",))
