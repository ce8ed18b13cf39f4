"""What answers, made to follow the record of a device's store.

Rules of this file:
  * whoever changes the record does it here, one at a time, and what answers follows;
  * what served before a trial stays loaded, so that going back is an exchange of one reference;
  * ``beside`` is what answers a share of the requests, while the record says so;
  * a disk in trouble is waited for: what answers does not depend on it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from runtime.adapters.backoff import Backoff
from runtime.adapters.off_loop import in_thread
from runtime.adapters.update_metrics import UpdateMetrics
from runtime.core.obeying import answering
from runtime.core.releases import Record, Release, Slot, Split
from runtime.errors import NoRoomError, StorageError
from runtime.exchange.serving import Served, Serving
from runtime.local_model import LocalResult
from runtime.logs import get_logger
from runtime.messages import Tensors
from runtime.ports import Clock
from runtime.updating.counting import OnRan, Watch, WatchedModel
from runtime.updating.shelf import UNUSABLE, Loaded, Shelf

_MIN_WAIT_S = 1.0
# With those that are loaded, fewer than a report takes.
MAX_LEFT = 3


def patience(longest_s: float) -> Backoff:
    """Waits between tries of what may mend itself."""
    chance = random.Random()  # noqa: S311 - it only has to differ between devices
    return Backoff(min_s=min(_MIN_WAIT_S, longest_s), max_s=longest_s, random=chance)


class Exchange:
    """The record and what answers; ``before`` is what served before the trial that goes on."""

    def __init__(
        self,
        shelf: Shelf,
        serving: Serving,
        build: Callable[[Loaded], Served],
        *,
        longest_wait_s: float,
        clock: Clock,
        metrics: UpdateMetrics,
    ) -> None:
        self.shelf, self.serving = shelf, serving
        self._build, self._longest_wait_s = build, longest_wait_s
        self._clock, self._metrics = clock, metrics
        self._log = get_logger()
        self._leaving: dict[asyncio.Task[None], Served] = {}
        # Held by whoever changes the record.
        self.turn = asyncio.Lock()
        self.before: Served | None = None
        self.beside: Served | None = None
        # Their last counts have not been reported yet.
        self._left: deque[Watch] = deque(maxlen=MAX_LEFT)
        self.on_ran: OnRan | None = None
        if shelf.first is not None:
            shelf.first.model.on_ran = self._ran

    @property
    def is_on_trial(self) -> bool:
        """Whether what answers is on probation."""
        trial = self.shelf.slot.trial
        return trial is not None and trial.release.name == self.serving.current.release

    @property
    def watches(self) -> list[Watch]:
        """Of what answers, of what is kept for the way back, and of what answered lately."""
        loaded = [self.serving.current, self.before, self.beside]
        models = [one.model for one in loaded if one is not None]
        watches = [one.watch for one in models if isinstance(one, WatchedModel)]
        apart = [self.shelf.apart] if self.shelf.apart.requests else []
        return watches + [one for one in self._left if one not in watches] + apart

    async def change(self, change: Callable[[Record], Record]) -> None:
        """Commits a change of the record, however long the disk is in trouble, and follows it.

        Raises:
            ReleaseError: the change is refused.
            NoRoomError: there is no room for it.
        """
        backoff = patience(self._longest_wait_s)
        while True:
            try:
                await self.commit(change)
                break
            except NoRoomError:
                raise
            except StorageError as error:
                self._log.error("record.not_written", error=str(error))
            await asyncio.sleep(backoff.next_s())
        await self.follow()

    async def commit(self, change: Callable[[Record], Record]) -> None:
        """Commits a change of the record and leaves what answers as it is.

        Raises:
            ReleaseError: the change is refused.
            StorageError: it could not be written.
        """
        async with self.turn:
            record = change(self.shelf.store.record)
            if record != self.shelf.store.record:
                await self.shelf.commit(record)

    async def follow(self) -> None:
        """Lets that answer which is on record, if another one does."""
        if not self.is_on_trial:
            await self.follow_slot(self.shelf.slot)

    async def follow_slot(self, slot: Slot) -> None:
        """Lets that answer which a slot has for good, also one that is not on record yet."""
        split = slot.split.release.name if slot.split else None
        if self.beside is not None and self.beside.release != split:
            beside, self.beside = self.beside, None
            self.serving.unite()
            self._retire(beside)
        wanted = answering(slot)
        if wanted is None or wanted.name == self.serving.current.release:
            self._drop_before()
        elif self.before is not None and self.before.release == wanted.name:
            self.put(self.before)
        else:
            try:
                loaded = await self.shelf.load_kept(wanted)
            except (*UNUSABLE, StorageError) as error:
                # It serves what it has: no answer is worse.
                self._log.error("release.not_loaded", version=wanted.version, error=str(error))
                return
            self.put(self.built(loaded))

    def built(self, loaded: Loaded) -> Served:
        """A model with all that depends on it, ready to answer."""
        loaded.model.on_ran = self._ran
        return self._build(loaded)

    def put(self, new: Served) -> None:
        """Another model answers from now on; what is not kept for the way back is closed."""
        old = self.serving.exchange(new)
        if old is new:
            return
        self._metrics.count_exchange()
        self._log.info("model.exchanged", release=new.release, before=old.release)
        if self.before is new:
            self.before = None
        if old is not self.before:
            self._retire(old)

    def divide(self, new: Served, split: Split) -> None:
        """Another model answers a share from now on; what it cannot answer, the one before does."""
        old, self.beside = self.beside, new
        if isinstance(new.model, WatchedModel):
            new.model.spare = self.serving.current.model
        self.serving.divide(new, split, self._metrics.count_arm)
        self._log.info(
            "model.split", release=new.release, share=split.share, experiment=split.experiment
        )
        if old is not None and old is not new:
            self._retire(old)

    def resume(self, loaded: Loaded) -> None:
        """Goes on with the split of an earlier life."""
        split = self.shelf.slot.split
        if split is not None:
            self.divide(self.built(loaded), split)

    def promote(self, release: Release) -> Served | None:
        """What answers a share, to answer everything; None where that is another release."""
        beside = self.beside
        if beside is None or beside.release != release.name:
            return None
        self.beside = None
        return beside

    def go_back_at_once(self) -> None:
        """Lets what served before the trial answer, where that is loaded; the record follows."""
        if self.is_on_trial and self.before is not None:
            self.put(self.before)

    async def collect(self) -> None:
        """Deletes what nobody needs any more."""
        async with self.turn:
            try:
                await in_thread(self.shelf.store.collect, self._clock.wall_s())
            except StorageError as error:
                self._log.error("store.not_collected", error=str(error))

    async def close(self) -> None:
        """Closes what does not answer."""
        leaving = dict(self._leaving)
        for task in leaving:
            task.cancel()
        if leaving:
            await asyncio.wait(leaving)
        others = [one for one in (self.before, self.beside) if one is not None]
        for served in (*leaving.values(), *others):
            await served.halt()
            await asyncio.to_thread(served.model.close)

    def _drop_before(self) -> None:
        before, self.before = self.before, None
        model = self.serving.current.model
        if isinstance(model, WatchedModel):
            model.spare = None
        if before is not None and before is not self.serving.current:
            self._retire(before)

    def _ran(self, inputs: Tensors, result: LocalResult) -> None:
        if self.on_ran is not None:
            self.on_ran(inputs, result)

    def _retire(self, served: Served) -> None:
        if isinstance(served.model, WatchedModel):
            self._left.append(served.model.watch)
        task = asyncio.create_task(served.close(), name="updates.retire")
        self._leaving[task] = served
        task.add_done_callback(self._leaving.pop)
