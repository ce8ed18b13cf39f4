"""Looks at all conditions, tells sinks, and answers operators.

Conditions come from: facts that devices and gateways send up, the same signs of this process,
rollouts that are taken back or wait for an operator, and what the stores of this tier say of
devices that have fallen silent, of decisions that have not come and of answers that wait for people
(``watching``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import structlog

from cloud_tier.alerts.settings import AlertSettings
from cloud_tier.alerts.sinks import MAX_TRIES, AlertTopics, Sink, Webhook, read_secret
from cloud_tier.alerts.store import AlertStore, Waiting, open_store
from cloud_tier.alerts.watching import Watch
from cloud_tier.rollouts.service import Rollouts
from runtime.alert_facts import decode_facts
from runtime.core.alert_groups import Place
from runtime.core.alerts import Condition, Notice, Severity, What
from runtime.core.alerts import Phase as AlertPhase
from runtime.core.rollout_states import Phase
from runtime.errors import StorageError
from runtime.exchange.alert_signs import REPEAT_S, AlertSigns
from runtime.exchange.chores import Chores
from runtime.exchange.course import Identity
from runtime.exchange.station import Station
from runtime.ports import Clock, MessageBus, OutboxItem

# What a process has said is believed until it would have said it again, a few times over.
FACTS_HOLD_S = 5 * REPEAT_S
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 900.0
_PAGED = ("decisions_missing",)
_ROLLOUTS = {
    Phase.PAUSED: ("rollout_asks", "waits for an operator"),
    Phase.ROLLING_BACK: ("rollout_breach", "is taken back"),
}
_log = structlog.get_logger()


class Alerts:
    """The alerts of one cloud tier. Lives on one event loop."""

    def __init__(
        self,
        identity: Identity,
        settings: AlertSettings,
        store: AlertStore,
        sinks: Sequence[Sink],
        *,
        signs: AlertSigns,
        clock: Clock,
        rollouts: Rollouts | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._identity, self._settings, self.store = identity, settings, store
        self.sinks = {sink.name: sink for sink in sinks}
        self._signs, self.clock, self._rollouts = signs, clock, rollouts
        self._watch = watch or Watch()
        self._chores = Chores()

    def start(self) -> None:
        """Begins to look and to tell."""
        self._chores.start(self._run(), "alerts")

    async def close(self) -> None:
        """Ends it; what a sink is being told is finished and noted, so that it is told once."""
        await self._chores.close()

    async def hear(self, item: OutboxItem) -> None:
        """Takes over what a process below says of itself.

        Raises:
            MalformedBodyError: it says nothing that is understood.
            StorageError: it was not stored; it is to come again.
        """
        decode_facts(item.body)
        # A sender's clock that is ahead would have the last word for ever.
        at_s = min(item.created_s, self.clock.wall_s())
        await self.store.hear(item.origin, at_s, item.body)

    async def look(self) -> list[Notice]:
        """One step of all alerts.

        Raises:
            StorageError: nothing has happened; the next look begins again.
        """
        now_s = self.clock.wall_s()
        conditions = [
            *self._own(),
            *await self._told(now_s),
            *await self._rolled(),
            *await self._watched(now_s),
        ]
        names = list(self.sinks)
        notices = await self.store.step(conditions, now_s, self._settings.rules, names)
        for one in notices:
            _log.warning(
                "alert.told", key=one.key, what=one.what.value, summary=one.condition.summary
            )
        return notices

    async def deliver(self) -> None:
        """Tells every sink the first of what it does not have yet, and so on while it takes it.

        Raises:
            StorageError: what was told may be told again.
        """
        while due := await self.store.waiting(self.clock.wall_s()):
            if self._chores.is_closing:
                return
            async with asyncio.TaskGroup() as group:
                for waiting in due:
                    group.create_task(self._tell(waiting))

    async def test(self) -> dict[str, str]:
        """Tells every sink a marked notice; by sink empty, or why it has not taken it."""
        condition = Condition(
            "test", self._identity.region, self._identity.site, "a test", Severity.INFO
        )
        now_s = self.clock.wall_s()
        notice = Notice(What.FIRING, condition.key, condition, now_s, now_s)
        results = await asyncio.gather(
            *(sink.tell(notice, is_test=True) for sink in self.sinks.values())
        )
        return dict(zip(self.sinks, results, strict=True))

    async def _run(self) -> None:
        """Looks and tells; trouble with the disk is logged once, and its end."""
        has_failed = False
        while not self._chores.is_closing:
            try:
                await self.look()
                await self.deliver()
            except* StorageError as errors:
                if not has_failed:
                    _log.error("alerts.failed", error=str(errors.exceptions[0]))
                has_failed = True
            else:
                if has_failed:
                    _log.info("alerts.recovered")
                has_failed = False
            await self._chores.pause(self._settings.interval_s)

    async def _tell(self, waiting: Waiting) -> None:
        sink = self.sinks.get(waiting.sink)
        # A sink that the settings name no more is told nothing.
        why = "" if sink is None else await sink.tell(waiting.notice)
        if not why:
            await self.store.settle(waiting, None)
        elif waiting.tries + 1 >= MAX_TRIES:
            _log.error("alert.given_up", sink=waiting.sink, key=waiting.notice.key, why=why)
            await self.store.settle(waiting, None)
        else:
            if not waiting.tries:
                _log.warning("alert.not_told", sink=waiting.sink, why=why)
            longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 3**waiting.tries)
            pause_s = random.uniform(0.5, 1.0) * longest_s  # noqa: S311 spreads load, no secret
            await self.store.settle(waiting, self.clock.wall_s() + pause_s)

    def _own(self) -> list[Condition]:
        identity = self._identity
        return [
            Condition(one.kind, identity.region, identity.site, one.summary, _severity(one.kind))
            for one in self._signs.look().signs
        ]

    async def _told(self, now_s: float) -> list[Condition]:
        found = []
        for origin, body in await self.store.facts(now_s - FACTS_HOLD_S):
            region, _, site = origin.partition("/")
            found += [
                Condition(one.kind, region, site, one.summary, _severity(one.kind))
                for one in decode_facts(body).signs
            ]
        return found

    async def _rolled(self) -> list[Condition]:
        if self._rollouts is None:
            return []
        found, controller = [], self._rollouts.controller
        region = self._identity.region
        for kept in await controller.store.live():
            rollout = kept.rollout
            if rollout.phase in _ROLLOUTS:
                kind, words = _ROLLOUTS[rollout.phase]
                summary = f"rollout {rollout.id} {words}"
                found.append(Condition(kind, region, "", summary, detail=rollout.id))
        return found

    async def _watched(self, now_s: float) -> list[Condition]:
        """What the stores of this tier say; a device counts as heard by whoever heard it last."""
        told = {
            key: alert.condition
            for key, alert in (await self.store.alerts()).items()
            if alert.told_s is not None and alert.phase is not AlertPhase.RECOVERED
        }
        heard: dict[Place, float] = {}
        if self._rollouts is not None:
            for row in await self._rollouts.controller.register.devices():
                region, _, site = row.id.partition("/")
                heard[region, site] = row.heard_s
        watch, after_s = self._watch, self._settings.silent_after_s
        return [
            *await watch.silent(heard, now_s, after_s, told),
            *await watch.gaps(now_s, told),
            *await watch.speaking(now_s, told),
            *await watch.late(self._identity.region, now_s, told),
        ]


def _severity(kind: str) -> Severity:
    return Severity.PAGE if kind in _PAGED else Severity.TICKET


@asynccontextmanager
async def alerting(
    settings: AlertSettings,
    folder: Path,
    parts: Station,
    bus: MessageBus,
    *,
    rollouts: Rollouts | None,
    watch: Watch,
) -> AsyncIterator[Alerts]:
    """Alerts that are looked at until left.

    Raises:
        StartError: the secret or the state folder cannot be used.
    """
    secret = read_secret(settings.webhook_secret_file)
    async with AsyncExitStack() as stack:
        file = stack.enter_context(open_store(folder))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        sinks: list[Sink] = [Webhook(session, url, secret) for url in settings.urls]
        if settings.mqtt:
            sinks.append(AlertTopics(bus, parts.identity.region))
        alerts = Alerts(
            parts.identity,
            settings,
            AlertStore(file),
            sinks,
            signs=AlertSigns(parts.metrics, parts.clock),
            clock=parts.clock,
            rollouts=rollouts,
            watch=watch,
        )
        stack.push_async_callback(alerts.close)
        alerts.start()
        yield alerts
