"""Drives all rollouts of the cloud: one after another, stored first, done afterwards.

Rules of this file:
  * every step begins with what is stored, so that nothing is remembered that a crash, or another
    controller, could make untrue;
  * one controller holds the store; one that finds that another does stops by itself;
  * what a device has not said that it knows is sent again, after a crash, too;
  * a rollout whose step fails is logged, and costs no other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

import structlog
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from cloud_tier.rollouts.catalogue import CatalogueReader
from cloud_tier.rollouts.committing import Change, Kept
from cloud_tier.rollouts.figures import figures_of, shadow_figures_of
from cloud_tier.rollouts.hearing import beat_of, candidate, events_of
from cloud_tier.rollouts.register import Register
from cloud_tier.rollouts.sending import Post
from cloud_tier.rollouts.store import RolloutStore
from runtime.adapters.off_loop import in_thread
from runtime.adapters.rollout_metrics import RolloutMetrics
from runtime.core.cohorts import Device
from runtime.core.rollout import conflicts, outstanding, step
from runtime.core.rollout_events import (
    Announce,
    AnyAction,
    AnyEvent,
    AskOperator,
    Audit,
    Heartbeats,
    Measure,
    TakeOver,
)
from runtime.core.rollout_states import ACTIVE, Phase, Rollout
from runtime.errors import RolloutConflictError
from runtime.ports import Clock, OutboxItem

# Reports and assignments of one step; the rest is for the next one.
MAX_HEARD, MAX_SENT = 1000, 500
_TIDY_S = 600.0
_log = structlog.get_logger()


class Controller:
    """One of them; ``name`` is its own in every life of every process."""

    def __init__(
        self,
        name: str,
        store: RolloutStore,
        *,
        register: Register,
        catalogue: CatalogueReader,
        post: Post,
        clock: Clock,
        metrics: RolloutMetrics | None = None,
    ) -> None:
        self._metrics = metrics or RolloutMetrics("tierwise", CollectorRegistry())
        self.name, self.store, self.register, self.catalogue = name, store, register, catalogue
        self._post, self.clock = post, clock
        self.lock = asyncio.Lock()
        # Set, and replaced by another one, when a rollout has changed.
        self.changed = asyncio.Event()
        self._is_deposed = False
        self._tidy_s = 0.0

    async def take_over(self) -> None:
        """Becomes the one that changes rollouts, and says again what devices are to know.

        Raises:
            StorageError: the store cannot be written.
        """
        async with self.lock:
            epoch = await self.store.hold(self.name)
            self._is_deposed = False
            for kept in await self.store.live():
                after, actions = step(kept.rollout, TakeOver(self.name), self.clock.wall_s())
                await self.commit(kept, after, (*actions, *outstanding(after)))
            await self.send()
            _log.info("rollouts.taken_over", holder=self.name, epoch=epoch)

    async def tick(self) -> None:
        """One step of every rollout.

        Raises:
            StorageError: the store cannot be read or written; the next tick begins again.
        """
        async with self.lock:
            if await self.store.holder() != self.name:
                if not self._is_deposed:
                    self._is_deposed = True
                    _log.error("rollouts.lost", holder=self.name)
                return
            heard = await self.register.waiting(MAX_HEARD)
            devices = {one.device for one in heard}
            rows = {row.id: row for row in await self.register.some(devices)}
            steps = await self.store.steps(devices)
            live = {kept.rollout.id: kept for kept in await self.store.live()}
            self._metrics.set_live(Counter(kept.rollout.phase.value for kept in live.values()))
            has_conflict = False
            for kept in tuple(live.values()):
                events = events_of(kept, heard, rows, steps, self.clock.wall_s())
                try:
                    live[kept.rollout.id] = await self._advance(kept, events, live.values())
                except RolloutConflictError as error:
                    has_conflict = True
                    _log.warning("rollout.conflict", rollout=kept.rollout.id, error=str(error))
                except (ValueError, ArithmeticError, LookupError):
                    _log.exception("rollout.crashed", rollout=kept.rollout.id)
            if heard and not has_conflict:
                await self.register.done(heard[-1].number)
            await self.send()
            await self._tidy()

    async def hear(self, item: OutboxItem) -> None:
        """Takes over what a device has reported, durably.

        Raises:
            RequestError: it is no report, or not of its sender; it is not to come again.
            StorageError: it was not stored; it is to come again.
        """
        now_s = self.clock.wall_s()
        result = await self.register.hear(
            item.body, item.origin, said_s=item.created_s, now_s=now_s
        )
        _log.debug("report.heard", origin=item.origin, result=result)

    async def plan(self, kept: Kept) -> tuple[tuple[Device, ...], Heartbeats]:
        """Devices that may take part, and the signs of life of those that are there."""
        now_s = self.clock.wall_s()
        rows = await self.register.devices()
        taken = [(row, candidate(row, kept.entry, now_s)) for row in rows]
        devices = tuple(device for _, device in taken if device is not None)
        since_s = now_s - kept.rollout.settings.offline_after_s
        there = [row for row, device in taken if device is not None and row.heard_s >= since_s]
        return devices, Heartbeats(tuple(beat_of(kept, row, ()) for row in there))

    async def commit(self, kept: Kept, after: Rollout, actions: Sequence[AnyAction]) -> Kept:
        """Stores a step, and tells whoever watches.

        Raises:
            RolloutConflictError: it is not any more what it was, or another controller has it.
            StorageError: nothing was stored.
        """
        if after == kept.rollout and not actions:
            return kept
        await self.store.commit(self.name, Change(kept, after, tuple(actions)), self.clock.wall_s())
        for action in actions:
            self._show(after, action)
        if after.phase is not kept.rollout.phase:
            self._metrics.count_phase(after.phase.value)
        self.changed.set()
        self.changed = asyncio.Event()
        return kept._replace(rollout=after)

    async def send(self) -> None:
        """Tells devices what they have not said that they know."""
        self._post.send(await self.store.unheard(MAX_SENT))
        self._post.flush()

    async def _advance(self, kept: Kept, events: list[AnyEvent], live: Iterable[Kept]) -> Kept:
        if kept.rollout.phase in ACTIVE:
            others = [one.rollout for one in live]
            events.append(replace(conflicts(kept.rollout, others), holder=self.name))
        if not events:
            return kept
        now_s = self.clock.wall_s()
        after, actions = await in_thread(folded, kept.rollout, events, now_s)
        measures = [one for one in actions if isinstance(one, Measure)]
        kept = await self.commit(
            kept, after, [one for one in actions if not isinstance(one, Measure)]
        )
        figures: list[AnyEvent] = [
            await figures_of(kept, one, self.register) for one in measures[-1:]
        ]
        if kept.rollout.phase is Phase.SHADOW and kept.rollout.settings.split is None:
            shadow = await shadow_figures_of(kept, now_s, self.register)
            figures += [shadow] if shadow else []
        if figures:
            after, actions = await in_thread(folded, kept.rollout, figures, now_s)
            kept = await self.commit(kept, after, actions)
        return kept

    async def _tidy(self) -> None:
        now_s = self.clock.monotonic_s()
        if now_s - self._tidy_s >= _TIDY_S:
            self._tidy_s = now_s
            await self.register.tidy(self.clock.wall_s())

    def _show(self, rollout: Rollout, action: AnyAction) -> None:
        if isinstance(action, Announce):
            self._post.announce(action)
        elif isinstance(action, AskOperator):
            self._metrics.count_question()
            _log.warning("rollout.asks", rollout=rollout.id, why=action.why)
        elif isinstance(action, Audit):
            _log.info(
                "rollout.moved",
                rollout=rollout.id,
                device=action.device,
                was=action.was,
                now=action.now,
                who=action.who,
                why=action.why,
            )


def folded(
    rollout: Rollout, events: Iterable[AnyEvent], now_s: float
) -> tuple[Rollout, list[AnyAction]]:
    """A rollout after several events at the same time, and everything that is to be done."""
    actions: list[AnyAction] = []
    for event in events:
        rollout, more = step(rollout, event, now_s)
        actions += more
    return rollout, actions
