"""An assignment carried out: looked up, fetched, checked, shown, and let to answer.

Rules of this file:
  * an outage is waited for until the assignment is void; what is refused is refused by name;
  * it may be cancelled at any point but while the record and what answers are exchanged, and goes
    on from there in this life or the next;
  * a model that is not fit is given up on record, with its fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from runtime.adapters.engine_version import installed_engines
from runtime.adapters.off_loop import in_thread, made_in_thread
from runtime.adapters.update_metrics import UpdateMetrics
from runtime.assignments import Assignment, Do
from runtime.core.activation import assign
from runtime.core.obeying import Standing, give_up, go_back, standing, withdraw
from runtime.core.releases import Fault, Record, Release
from runtime.core.rollout_states import Execution
from runtime.core.splitting import check_may_split, unite
from runtime.core.trial import Decision, Window, judge
from runtime.errors import (
    ArtifactError,
    NoRoomError,
    ReleaseError,
    SecurityError,
    StorageError,
    TierwiseError,
    UnavailableError,
)
from runtime.logs import get_logger
from runtime.messages import Tier
from runtime.ports import Clock
from runtime.updating.candidate import Candidate, OpenCandidate, UnfitError
from runtime.updating.exchange import Exchange, patience
from runtime.updating.fetching import Fetcher
from runtime.updating.going_live import GoingLive, OnSplit, OnTrial
from runtime.updating.orders import Refused, check_time, chosen_release
from runtime.updating.settings import UpdateSettings
from runtime.updating.shadowing import Shadow
from runtime.updating.telling import Teller

T = TypeVar("T")


class Installer:
    """Carries out one assignment at a time."""

    def __init__(
        self,
        settings: UpdateSettings,
        exchange: Exchange,
        fetcher: Fetcher,
        teller: Teller,
        *,
        clock: Clock,
        metrics: UpdateMetrics,
        open_candidate: OpenCandidate,
        on_trial: OnTrial,
        on_split: OnSplit,
    ) -> None:
        self._settings, self._exchange, self._fetcher = settings, exchange, fetcher
        self._teller, self._clock, self._metrics = teller, clock, metrics
        self._open_candidate = open_candidate
        self._going_live = GoingLive(settings, exchange, teller, on_trial, on_split)
        self._shelf = exchange.shelf
        self._log = get_logger()
        # Held while what answers is exchanged.
        self.switching = asyncio.Lock()
        # There is news from the catalogue.
        self.has_news = asyncio.Event()
        self.shadow: Shadow | None = None
        # The release that was assigned to be in shadow last: it is not kept there once more.
        self._was_in_shadow = ""

    async def carry_out(self, assignment: Assignment) -> None:
        """Does what an assignment says; all that can go wrong with it is told."""
        seq, name = assignment.seq, self._shelf.name
        try:
            match assignment.do:
                case Do.WITHDRAW:
                    await self._exchange.change(lambda record: withdraw(record, name, seq))
                    state = Execution.TRIAL if self._exchange.is_on_trial else Execution.CANCELLED
                    self._teller.tell(state, seq=seq, reason="withdrawn")
                case Do.ROLL_BACK:
                    to = assignment.to
                    await self._exchange.change(
                        lambda record: go_back(record, name, seq=seq, to=to)
                    )
                    self._teller.tell(Execution.ROLLED_BACK, seq=seq, reason="told to go back")
                    await self._exchange.collect()
                case Do.SHADOW | Do.TRIAL | Do.SPLIT:
                    await self._install(assignment)
        except ReleaseError as error:
            self._refuse(seq, error.because, error)
        except StorageError as error:
            self._refuse(seq, error.code, error)

    def _refuse(self, seq: int, because: str, error: TierwiseError) -> None:
        self._metrics.count_refusal(because)
        self._log.error("assignment.rejected", seq=seq, because=because, error=str(error))
        self._teller.tell(Execution.REJECTED, seq=seq, reason=f"{because}: {error}")

    async def _install(self, assignment: Assignment) -> None:
        seq, name, clears_bad = assignment.seq, self._shelf.name, assignment.clears_bad
        self._teller.tell(Execution.OFFERED, seq=seq)
        if assignment.do is Do.SPLIT and self._shelf.tier is not Tier.EDGE:
            raise ReleaseError(
                "requests are split by what their caller says, which stays on the device: assign "
                "a split to devices",
                because=Refused.EDGE_ONLY,
            )
        release = await self._patiently(assignment, lambda: self._look_up(assignment))
        is_shadow, is_split = assignment.do is Do.SHADOW, assignment.do is Do.SPLIT

        def assigned(record: Record) -> Record:
            if is_split:
                check_may_split(record, name, release)
            after = assign(record, name, release, seq=seq, clears_bad=clears_bad)
            # What is to be in shadow is not to answer a share any more.
            return unite(after, name) if is_shadow else after

        await self._exchange.change(assigned)
        match standing(self._shelf.slot):
            case Standing.CURRENT:
                return self._teller.tell(Execution.CONFIRMED, seq=seq)
            case Standing.TRIAL:
                return self._teller.tell(Execution.TRIAL, seq=seq)
        beside = self._exchange.beside
        try:
            if beside is not None and beside.release == release.name:
                # It answers already: only how much of it changes, or on what terms.
                async with self.switching:
                    return await self._going_live.carry_out(assignment, release, None)
            self._teller.tell(Execution.DOWNLOADING, seq=seq)
            await self._patiently(assignment, lambda: self._fetcher.fetch(release))
            await self._try_out(assignment, release)
        except UnfitError as error:
            fault = error.fault
            await self._exchange.change(lambda record: give_up(record, name, release, fault))
            self._teller.given_up(seq, fault, str(error))
            await self._exchange.collect()

    async def _look_up(self, assignment: Assignment) -> Release:
        """What is to be installed, by the newest catalogue that can be had."""
        catalogue = self._fetcher.catalogue
        try:
            async with self._exchange.turn:
                await self._fetcher.refresh()
        except (UnavailableError, SecurityError):
            if assignment.path not in catalogue.paths():
                # It may well be in the one that cannot be had.
                raise
        try:
            entry = await in_thread(catalogue.entry, assignment.path)
        except ArtifactError as error:
            raise ReleaseError(str(error), because=Refused.ENTRY_UNREADABLE) from error
        return chosen_release(
            assignment,
            entry,
            model=self._shelf.name,
            tier=self._shelf.tier,
            hardware=self._settings.tags,
            engines=installed_engines(),
        )

    async def _patiently(self, assignment: Assignment, step: Callable[[], Awaitable[T]]) -> T:
        """What a step gives, which is tried until the assignment is void.

        Raises:
            ReleaseError: refused, or void by now.
            NoRoomError: it does not fit.
        """
        backoff = patience(self._settings.refresh_interval_s)
        while True:
            check_time(assignment, self._fetcher.now_s())
            self.has_news.clear()
            try:
                return await step()
            except NoRoomError:
                raise
            except (UnavailableError, SecurityError) as error:
                self._log.warning("update.waits", seq=assignment.seq, error=str(error))
                state = Execution(self._teller.tale.state)
                self._teller.tell(state, seq=assignment.seq, reason=error.code)
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.next_s()):
                    await self.has_news.wait()

    async def _try_out(self, assignment: Assignment, release: Release) -> None:
        """Checks a release that is here beside what serves, and lets it answer if it may.

        Raises:
            UnfitError: it may not.
            ReleaseError: it is too late for that.
        """
        seq, is_shadow = assignment.seq, assignment.do is Do.SHADOW
        store = self._shelf.store
        folder = await self._patiently(assignment, lambda: in_thread(store.folder, release))
        serves = self._exchange.serving.current.model.manifest
        candidate = await made_in_thread(
            lambda: self._open_candidate(release, folder, serves), Candidate.close
        )
        seen: Window | None = None
        try:
            self._teller.tell(Execution.VERIFIED, seq=seq)
            if is_shadow:
                self._teller.tell(Execution.SHADOW, seq=seq)
                self._was_in_shadow = release.name
            if is_shadow or self._is_to_be_shadowed(release):
                # Before a trial this is our own precaution: who assigns waits for the trial.
                seen = await self._shadowed(candidate, is_endless=is_shadow)
        finally:
            await in_thread(candidate.close)
        check_time(assignment, self._fetcher.now_s())
        async with self.switching:
            await self._going_live.carry_out(assignment, release, seen)

    def _is_to_be_shadowed(self, release: Release) -> bool:
        return self._settings.is_shadowed and release.name != self._was_in_shadow

    async def _shadowed(self, candidate: Candidate, *, is_endless: bool) -> Window:
        """What the candidate did beside what serves, when that is enough.

        Raises:
            UnfitError: it is not as good.
        """
        limits, num_looks = self._settings.shadow_limits(), 0
        began_s = self._clock.monotonic_s()
        shadow = self.shadow = Shadow(
            candidate, self._settings.shadow_share, clock=self._clock, metrics=self._metrics
        )
        self._exchange.on_ran = shadow.seen
        try:
            while True:
                await asyncio.sleep(self._settings.judge_interval_s)
                if candidate.fault is not None:
                    raise candidate.fault
                elapsed_s = self._clock.monotonic_s() - began_s
                window = shadow.window()
                verdict = judge(window, None, elapsed_s, limits, num_looks=num_looks)
                num_looks = verdict.num_looks
                # Who is to stay in shadow has all the time that it is given.
                is_idle = is_endless and verdict.fault is Fault.TOO_FEW
                if verdict.fault is not None and not is_idle:
                    raise UnfitError(verdict.detail, verdict.fault)
                if verdict.decision is Decision.KEEP and not is_endless:
                    return window
        finally:
            self._exchange.on_ran = None
            self._teller.report()
            self.shadow = None
            await shadow.close()
