"""The device's updater: from a signed assignment to a model that serves, or that went back.

    heard -> downloading -> verified -> shadow -> trial -> confirmed
                 `-- rejected    `--------`---------`-> rolled_back

Rules of this file:
  * what may be installed is said by two keys: the catalogue's and that of assignments;
  * nothing here touches a request: what answers is exchanged between two of them;
  * the latest assignment outlives the process, so that a device without a network goes on with it;
  * trials and the way back need no network.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime import topics
from runtime.adapters.off_loop import in_thread
from runtime.adapters.update_metrics import UpdateMetrics
from runtime.assignments import Assignment
from runtime.core.obeying import Standing, is_new, standing, take_back
from runtime.core.releases import Fault
from runtime.core.rollout_states import Execution
from runtime.core.selection import CRASH_WINDOW_S
from runtime.errors import (
    ReleaseError,
    SecurityError,
    StorageError,
    TierwiseError,
)
from runtime.logs import get_logger
from runtime.ports import Clock, Message, MessageBus
from runtime.updating.candidate import OpenCandidate
from runtime.updating.counting import Watch
from runtime.updating.dividing import SplitWatch
from runtime.updating.exchange import Exchange, patience
from runtime.updating.fetching import Fetcher
from runtime.updating.installing import Installer
from runtime.updating.order_file import MAX_BYTES, OrderFile
from runtime.updating.orders import Refused, check_time, read_order
from runtime.updating.place import Place
from runtime.updating.probation import Probation
from runtime.updating.telling import Teller, shown
from runtime.updating.trial_file import Compared, TrialFile


class Updater:
    """One device's updates: ``listen`` before the bus starts, ``start`` when all else runs."""

    def __init__(
        self,
        place: Place,
        *,
        exchange: Exchange,
        fetcher: Fetcher,
        teller: Teller,
        clock: Clock,
        metrics: UpdateMetrics,
        open_candidate: OpenCandidate,
    ) -> None:
        self._identity, self._limits = place.identity, place.updates
        self._exchange, self._fetcher, self.teller = exchange, fetcher, teller
        self._shelf, self._clock, self._metrics = exchange.shelf, clock, metrics
        self._installer = Installer(
            place.updates,
            exchange,
            fetcher,
            teller,
            clock=clock,
            metrics=metrics,
            open_candidate=open_candidate,
            on_trial=self._on_trial,
            on_split=self._begin_split,
        )
        self._folder = Path(place.state.folder)
        self._orders = OrderFile(self._folder)
        self._log = get_logger()
        self._inbox: bytes | None = None
        self._unread: bytes | None = None
        self._has_mail = asyncio.Event()
        self._seq = 0
        self._work: asyncio.Task[None] | None = None
        self._main: asyncio.Task[None] | None = None
        self._trial: asyncio.Task[None] | None = None
        self._split: tuple[int, asyncio.Task[None]] | None = None
        self._going_back: set[asyncio.Task[None]] = set()

    @property
    def watches(self) -> list[Watch]:
        """Of all models that are loaded."""
        shadow = self._installer.shadow
        return self._exchange.watches + ([shadow.watch] if shadow else [])

    def listen(self, bus: MessageBus) -> None:
        """Hears what is retained for this device."""
        topic = topics.assignment(self._identity.region, self._identity.site)
        bus.subscribe(topic, self._on_message, qos=1)

    def start(self) -> None:
        """Goes on with what was assigned before, and with what is heard from now on."""
        first = self._shelf.first
        if first is not None and first.generation is not None:
            self._begin_probation(first.generation)
        second = self._shelf.second
        if second is not None and second.generation is not None:
            self._begin_split(second.generation)
        self._main = self._task(self._run(), "updates")

    async def close(self) -> None:
        """Ends what is in progress, at a point from which it goes on; the model stays as it is."""
        await _ended(self._main)
        await self._stop_work()
        await _ended(self._trial)
        await _ended(self._split[1] if self._split else None)
        if self._going_back:
            # Half of it would be undone by the next start.
            await asyncio.wait(self._going_back)
        self.teller.report()
        await self._exchange.close()

    async def roll_back(self, why: str) -> None:
        """Somebody at the device goes back to what served before; needs no network.

        It is carried out to its end, also where whoever asked does not wait for that.

        Raises:
            ReleaseError: nothing is there to go back to.
            StorageError: it could not be written down; what served before answers, until the next
                start.
        """
        going_back = asyncio.create_task(self._go_back(why), name="updates.go_back")
        self._going_back.add(going_back)
        going_back.add_done_callback(self._on_back)
        await asyncio.shield(going_back)

    def _on_back(self, task: asyncio.Task[None]) -> None:
        self._going_back.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nobody may have waited for it.
            self._log.error("update.not_taken_back", error=str(error))

    async def _go_back(self, why: str) -> None:
        await self._stop_work()
        name = self._shelf.name
        # At once: the record may have to wait for a mirror that does not answer.
        await self._exchange.follow_slot(take_back(self._shelf.store.record, name).slot(name))
        await self._exchange.commit(lambda record: take_back(record, name))
        await self._exchange.follow()
        self._metrics.count_fault(Fault.OPERATOR)
        self._log.warning("update.taken_back", why=why)
        seq = max(self._seq, self._shelf.slot.seq)
        self.teller.tell(Execution.ROLLED_BACK, seq=seq, reason=f"{Fault.OPERATOR}: {why}")

    def shown(self) -> dict[str, Any]:
        """All of it as plain values, for people at the device."""
        shadow = self._installer.shadow
        dropped = shadow.num_dropped if shadow else 0
        return {**self.teller.shown(), **shown(self._shelf.slot), "shadow_dropped": dropped}

    def _on_message(self, message: Message) -> None:
        if message.payload:
            # What is larger is refused unread; the latest one is all that counts.
            self._inbox = message.payload[:MAX_BYTES]
            self._has_mail.set()

    def _task(self, work: Any, name: str) -> asyncio.Task[None]:  # noqa: ANN401 any coroutine
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # What serves goes on; this part of updates is over until the next start.
            self._log.critical("updates.crashed", task=task.get_name(), exc_info=error)

    async def _run(self) -> None:
        await self._open()
        kept = await asyncio.to_thread(self._orders.read)
        # What was heard meanwhile is newer.
        self._inbox = self._inbox or kept
        if self._inbox is not None:
            self._has_mail.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(), name="updates.hear")
            group.create_task(self._refresh_again(), name="updates.refresh")
            group.create_task(self._report_again(), name="updates.report")
            group.create_task(self._note_ran_well(), name="updates.ran_well")

    async def _open(self) -> None:
        backoff = patience(self._limits.refresh_interval_s)
        while True:
            try:
                return await in_thread(self._fetcher.open)
            except (SecurityError, StorageError) as error:
                self._log.error("catalogue.not_opened", error=str(error))
            await asyncio.sleep(backoff.next_s())

    async def _hear(self) -> None:
        while True:
            await self._has_mail.wait()
            self._has_mail.clear()
            if self._inbox is not None:
                await self._weigh(self._inbox)

    async def _refresh_again(self) -> None:
        # Not all devices of a region at once.
        chance = random.Random()  # noqa: S311
        while True:
            await asyncio.sleep(self._limits.refresh_interval_s * chance.uniform(0.5, 1.0))
            # What went wrong is in the log, and is tried again.
            with suppress(TierwiseError):
                await self._refresh()

    async def _refresh(self) -> None:
        """Asks for what is new; the errors of ``TrustedCatalogue.refresh``."""
        async with self._exchange.turn:
            await self._fetcher.refresh()
        self._installer.has_news.set()
        unread, self._unread = self._unread, None
        if unread is not None and not self._has_mail.is_set():
            # Its key may be known by now.
            self._inbox = unread
            self._has_mail.set()

    async def _report_again(self) -> None:
        while True:
            self.teller.report()
            await asyncio.sleep(self._limits.report_interval_s)

    async def _note_ran_well(self) -> None:
        await asyncio.sleep(CRASH_WINDOW_S)
        async with self._exchange.turn:
            try:
                await self._shelf.note_ran_well()
            except StorageError as error:
                self._log.error("record.not_written", error=str(error))

    async def _weigh(self, payload: bytes) -> None:
        """Takes an assignment, or refuses it by name."""
        try:
            assignment = await self._read(payload)
            slot, seq = self._shelf.slot, assignment.seq
            if not is_new(slot, seq=seq, heard_seq=self._seq):
                self._metrics.count_repetition()
                if seq > self._seq:
                    self._seq = seq
                    await self._resume(assignment)
                return
            check_time(assignment, self._fetcher.now_s())
        except ReleaseError as error:
            self._metrics.count_refusal(error.because)
            self._log.error("assignment.refused", because=error.because, error=str(error))
            if error.because == Refused.UNKNOWN_KEY:
                self._unread = payload
            elif error.because == Refused.EXPIRED:
                # Whoever has sent it may, and is to know.
                self._seq = assignment.seq
                reason = f"{error.because}: {error}"
                self.teller.tell(Execution.REJECTED, seq=assignment.seq, reason=reason)
            return
        self._log.info("assignment.taken", seq=seq, do=assignment.do)
        self._seq = seq
        await in_thread(self._orders.write, payload)
        await self._begin(assignment)

    async def _read(self, payload: bytes) -> Assignment:
        device, region = self._identity.site, self._identity.region
        try:
            return read_order(payload, self._fetcher.keys(), device=device, region=region)
        except ReleaseError as error:
            if error.because != Refused.UNKNOWN_KEY:
                raise
        # Keys come with the catalogue, which may not have been fetched yet.
        with suppress(TierwiseError):
            await self._refresh()
        return read_order(payload, self._fetcher.keys(), device=device, region=region)

    async def _resume(self, assignment: Assignment) -> None:
        """The latest assignment of an earlier life: says how it stands, or goes on with it."""
        slot = self._shelf.slot
        # What is on record to answer a share, and could not be loaded at the start, is tried again.
        is_missing = standing(slot) is Standing.SPLIT and self._exchange.beside is None
        if standing(slot) is Standing.WANTED or is_missing:
            await self._begin(assignment)
        else:
            self.teller.tell_standing(slot, assignment)

    async def _begin(self, assignment: Assignment) -> None:
        await self._stop_work()
        self._work = self._task(self._installer.carry_out(assignment), "updates.work")

    async def _stop_work(self) -> None:
        """Ends what is being prepared; an exchange that has begun is not torn apart."""
        async with self._installer.switching:
            if self._work is not None:
                self._work.cancel()
        await _ended(self._work)

    def _on_trial(self, compared: Compared) -> None:
        self._begin_probation(compared.generation, compared)

    def _begin_split(self, generation: int) -> None:
        if self._split is not None and self._split[0] == generation and not self._split[1].done():
            return
        watch = SplitWatch(self._exchange, generation, settings=self._limits, teller=self.teller)
        self._split = generation, self._task(watch.run(), "updates.split")

    def _begin_probation(self, generation: int, compared: Compared | None = None) -> None:
        # One of an earlier trial sees that it is over.
        probation = Probation(
            self._exchange,
            generation,
            compared,
            file=TrialFile(self._folder),
            settings=self._limits,
            teller=self.teller,
            clock=self._clock,
        )
        self._trial = self._task(probation.run(), "updates.trial")


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
