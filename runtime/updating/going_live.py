"""A release that is here and was checked begins to answer: everything on trial, or a share.

Rules of this file:
  * what is on record comes first, and what answers follows it;
  * what answers a share already is not loaded anew, whatever more it is to answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runtime.adapters.off_loop import in_thread
from runtime.assignments import Assignment, Do
from runtime.core.activation import stage
from runtime.core.releases import Fault, Release
from runtime.core.rollout_states import Execution
from runtime.core.trial import Window
from runtime.exchange.serving import Served
from runtime.updating.candidate import UnfitError
from runtime.updating.counting import WatchedModel
from runtime.updating.dividing import record_split
from runtime.updating.exchange import Exchange
from runtime.updating.settings import UpdateSettings
from runtime.updating.shelf import UNUSABLE
from runtime.updating.telling import Teller
from runtime.updating.trial_file import Compared

# Told that a trial has begun.
OnTrial = Callable[[Compared], None]
# Told that a release answers a share, and of which generation.
OnSplit = Callable[[int], None]


class GoingLive:
    """Exchanges what answers; whoever calls holds off everybody else who would."""

    def __init__(
        self,
        settings: UpdateSettings,
        exchange: Exchange,
        teller: Teller,
        on_trial: OnTrial,
        on_split: OnSplit,
    ) -> None:
        self._settings, self._exchange, self._teller = settings, exchange, teller
        self._on_trial, self._on_split = on_trial, on_split
        self._shelf = exchange.shelf

    async def carry_out(
        self, assignment: Assignment, release: Release, seen: Window | None
    ) -> None:
        """Puts a release on trial, or lets it answer its share.

        Args:
            assignment: says which of the two.
            release: what it names.
            seen: what it did in shadow before.

        Raises:
            UnfitError: it cannot be loaded.
            ReleaseError: refused.
            StorageError: it could not be written down.
        """
        if assignment.do is Do.SPLIT:
            await self._split(assignment, release)
        else:
            await self._try(assignment, release, seen)

    async def _try(self, assignment: Assignment, release: Release, seen: Window | None) -> None:
        seq, name, exchange = assignment.seq, self._shelf.name, self._exchange
        clears_bad = assignment.clears_bad
        await exchange.commit(
            lambda record: stage(record, name, release, seq=seq, clears_bad=clears_bad)
        )
        async with exchange.turn:
            started = await in_thread(self._shelf.store.begin_attempt, name)
        generation, given_up = started.selection.generation, started.selection.given_up
        if started.folder is None or generation is None:
            fault = given_up[-1].fault if given_up else Fault.FILES_LOST
            raise UnfitError("its files are damaged, or it had its attempts", fault)
        new = await self._ready(release, started.folder, generation)
        base = exchange.before or exchange.serving.current
        before: Window | None = None
        if isinstance(base.model, WatchedModel):
            before = base.model.watch.window(self._settings.latency_floor_ms)
        if isinstance(new.model, WatchedModel):
            new.model.spare = base.model
        exchange.before = base
        exchange.put(new)
        self._teller.tell(Execution.TRIAL, seq=seq)
        self._on_trial(Compared(generation, before, seen))

    async def _split(self, assignment: Assignment, release: Release) -> None:
        split = await record_split(self._exchange, assignment, release)
        folder = await in_thread(self._shelf.store.folder, release)
        new = await self._ready(release, folder, split.trial.generation)
        self._exchange.divide(new, split)
        self._teller.tell(Execution.SPLIT, seq=assignment.seq)
        self._on_split(split.trial.generation)

    async def _ready(self, release: Release, folder: Path, generation: int) -> Served:
        promoted = self._exchange.promote(release)
        if promoted is not None:
            return promoted
        try:
            loaded = await self._shelf.load_release(release, folder, generation)
        except UNUSABLE as error:
            raise UnfitError(str(error), Fault.LOAD_FAILED) from error
        return self._exchange.built(loaded)
