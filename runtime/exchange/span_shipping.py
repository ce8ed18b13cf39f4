"""Takes spans over at once, keeps them on disk, and sends them while their endpoint answers.

Rules of this file:
  * nobody waits: a span is put into a bounded list, and written by a task of its own;
  * what was written waits as long as the endpoint is away, within the bounds of the spool;
  * an endpoint that is away is logged once, and so is its return.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from runtime.adapters.backoff import Backoff
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.off_loop import in_thread
from runtime.adapters.otlp_exporter import OtlpExporter
from runtime.adapters.span_spool import SpanSpool, open_spool
from runtime.adapters.tracing_metrics import TracingMetrics
from runtime.core.tracing import Span
from runtime.errors import StorageError
from runtime.exchange.chores import Chores
from runtime.exchange.course import Identity
from runtime.exchange.tracing import Tracer
from runtime.ports import Clock
from runtime.tracing_settings import TracingSettings

# Spans that wait to be written; they come in bursts of a few a request.
MAX_UNWRITTEN = 4096
# How many are sent at a time.
BATCH = 256
_WRITE_INTERVAL_S = 1.0
Export = Callable[[Sequence[Span]], bool]
_log = structlog.get_logger()


class SpanShipper:
    """Implements ``SpanRecorder``. Lives on one event loop."""

    def __init__(
        self,
        spool: SpanSpool,
        export: Export,
        *,
        clock: Clock,
        metrics: TracingMetrics,
        interval_s: float = _WRITE_INTERVAL_S,
        longest_s: float = 60.0,
    ) -> None:
        self._spool, self._export, self._clock = spool, export, clock
        self._metrics, self._interval_s = metrics, interval_s
        # Spreads the load after an outage; nothing secret depends on it.
        chooser = random.Random()  # noqa: S311
        self._backoff = Backoff(min_s=interval_s, max_s=longest_s, random=chooser)
        self._unwritten: list[Span] = []
        self._not_before_s = 0.0
        self._is_away = False
        self._chores = Chores()

    def record(self, span: Span) -> None:
        """See the port."""
        if len(self._unwritten) >= MAX_UNWRITTEN:
            self._metrics.count_spans("dropped_burst")
            return
        self._unwritten.append(span)
        self._metrics.count_spans("recorded")

    def start(self) -> None:
        """Begins to write and to send."""
        self._chores.start(self._run(), "spans.ship")

    async def close(self) -> None:
        """Ends sending; writes what is not on disk yet, to be sent in the next life."""
        # A step in progress is finished: cut short, it would lose spans or send them twice.
        await self._chores.close()
        await self._write()

    async def _run(self) -> None:
        while not self._chores.is_closing:
            await self._write()
            if self._clock.monotonic_s() >= self._not_before_s:
                await self._send()
            await self._chores.pause(self._interval_s)

    async def _write(self) -> None:
        spans, self._unwritten = self._unwritten, []
        if not spans:
            return
        try:
            await self._spool.add(spans, self._clock.wall_s())
        except StorageError as error:
            self._metrics.count_spans("dropped_disk", len(spans))
            _log.warning("spans.not_written", error=str(error), num_spans=len(spans))

    async def _send(self) -> None:
        try:
            while kept := await self._spool.oldest(BATCH):
                has_arrived = await in_thread(self._export, [one.span for one in kept])
                self._note(has_arrived=has_arrived)
                if not has_arrived:
                    return
                await self._spool.sent(kept)
                if self._chores.is_closing:
                    return
        except StorageError as error:
            _log.warning("spans.not_read", error=str(error))

    def _note(self, *, has_arrived: bool) -> None:
        if has_arrived:
            self._backoff.reset()
            if self._is_away:
                _log.info("spans.sent_again")
        else:
            self._not_before_s = self._clock.monotonic_s() + self._backoff.next_s()
            if not self._is_away:
                _log.warning("spans.not_sent", remedy="is tracing.endpoint right, and does it run?")
        self._is_away = not has_arrived


@asynccontextmanager
async def tracing(
    settings: TracingSettings,
    identity: Identity,
    folder: Path,
    *,
    clock: Clock,
    metrics: TierMetrics,
) -> AsyncIterator[Tracer | None]:
    """A tracer that records into the spool of a state folder until left; None where that is off.

    Raises:
        StartError: the extra is not installed, or the folder cannot be used.
    """
    if not settings.endpoint:
        yield None
        return
    said = {"tier": identity.tier.value, "site": identity.site, "region": identity.region}
    exporter = OtlpExporter(
        settings.endpoint, {f"tierwise.{name}": value for name, value in said.items()}
    )
    with open_spool(folder, max_bytes=settings.spool_max_bytes) as file:
        counted = metrics.tracing
        spool = SpanSpool(
            file,
            max_bytes=settings.spool_max_bytes,
            max_age_s=settings.spool_max_age_s,
            metrics=counted,
        )
        shipper = SpanShipper(spool, exporter.export, clock=clock, metrics=counted)
        shipper.start()
        try:
            yield Tracer(
                identity.tier,
                identity.site,
                shipper,
                clock=clock,
                metrics=counted,
                share=settings.sample_share,
            )
        finally:
            exporter.close()
            await shipper.close()
