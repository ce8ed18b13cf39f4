"""One step of a rollout while it is worked out: the one place where states change.

Every change goes through ``move`` or ``go``, which look it up in the tables and write the audit.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from runtime.core.rollout_events import (
    AnyAction,
    AskOperator,
    Audit,
    Refuse,
    RollBack,
    Unassign,
)
from runtime.core.rollout_states import (
    COUNTED,
    FAILED,
    MOVES,
    NOT_SERVING,
    TRANSITIONS,
    Cause,
    DeviceRecord,
    Execution,
    Phase,
    Rollout,
)


class Turn:
    """A rollout that is being changed; ``who`` is the one whom the audit names."""

    def __init__(self, rollout: Rollout, now_s: float, who: str) -> None:
        self._before = rollout
        self.rollout = rollout
        self.devices = dict(rollout.devices)
        self.now_s, self.who = now_s, who
        self.actions: list[AnyAction] = []

    def result(self) -> tuple[Rollout, tuple[AnyAction, ...]]:
        """The new state, with its next revision if anything has changed, and what to do."""
        after = replace(self.rollout, devices=self.devices)
        if after != self._before:
            after = replace(after, revision=self._before.revision + 1)
        return after, tuple(self.actions)

    def set(self, **fields: object) -> None:
        """Changes what is no phase and no device."""
        self.rollout = replace(self.rollout, **fields)

    def note(self, record: DeviceRecord, **fields: object) -> DeviceRecord:
        """Changes what is no state of a device."""
        self.devices[record.id] = record = replace(record, **fields)
        return record

    def move(self, record: DeviceRecord, to: Execution, why: str, **fields: object) -> DeviceRecord:
        """Changes a device's state.

        Raises:
            ValueError: the table has no such move.
        """
        if to not in MOVES[record.state]:
            raise ValueError(f"{record.id}: no move from {record.state} to {to}")
        self.actions.append(Audit(self.now_s, self.who, why, record.state, to, record.id))
        has_failed = record.has_failed or (to in FAILED and record.state in COUNTED)
        return self.note(
            record, state=to, reason=why, since_s=self.now_s, has_failed=has_failed, **fields
        )

    def go(self, cause: Cause, why: str) -> None:
        """Changes the phase; the caller has looked whether the table has it (``can``)."""
        rows = TRANSITIONS[self.rollout.phase, cause]
        to = self.rollout.paused_from if cause is Cause.RESUME else rows[0]
        if to not in rows:
            raise ValueError(f"no way from {self.rollout.phase} to {to} by {cause}")
        self.actions.append(Audit(self.now_s, self.who, why, self.rollout.phase, to))
        self.set(phase=to)

    def can(self, cause: Cause) -> bool:
        """Whether the table has a row for this."""
        return (self.rollout.phase, cause) in TRANSITIONS

    def refuse(self, why: str) -> None:
        """Says no; nothing has been changed."""
        self.actions.append(Refuse(why))

    def ask(self, why: str) -> None:
        """Asks an operator, once for every reason in a row."""
        if why != self.rollout.asked:
            self.set(asked=why)
            self.actions.append(AskOperator(why))

    def members(self, wave: int) -> Iterator[DeviceRecord]:
        """The devices up to a wave, in their order."""
        return (one for one in tuple(self.devices.values()) if one.wave <= wave)

    def withdraw(self, record: DeviceRecord, why: str) -> None:
        """Takes back what does not serve yet; what serves on trial, or is over, stays."""
        if record.state in NOT_SERVING:
            record = self.move(record, Execution.CANCELLED, why, wanted=record.before)
            self.actions.append(Unassign(record.id, record.seq))
        elif record.state is Execution.PENDING:
            self.move(record, Execution.CANCELLED, why)

    def send_back(self, record: DeviceRecord, why: str) -> None:
        """Returns a device to what it had before, unless it is known to be there, or never left.

        A device of which the controller has only heard that it downloads may be on trial by now:
        whoever was asked is told, and is back when it says so in answer to that.
        """
        was_told = record.state is Execution.RETURNING
        is_there = record.state in (Execution.ROLLED_BACK, Execution.REJECTED) and (
            record.serving == record.before
        )
        if not record.was_asked:
            self.withdraw(record, why)
        elif not was_told and not is_there:
            record = self.move(
                record, Execution.RETURNING, why, wanted=record.before, seq=record.seq + 1
            )
            self.actions.append(RollBack(record.id, record.before, record.seq))

    def stop_assigning(self, why: str) -> None:
        """Nobody gets the new version any more who has it not on trial."""
        for record in tuple(self.devices.values()):
            self.withdraw(record, why)

    def abort(self, why: str) -> None:
        """Stops; who has the new version keeps it."""
        self.go(Cause.ABORT, why)
        self.stop_assigning(why)
        self.settle()

    def roll_back(self, why: str) -> None:
        """Stops, and returns every device to the version that it had before."""
        self.go(Cause.ROLL_BACK, why)
        for record in tuple(self.devices.values()):
            self.send_back(record, why)
        self.settle()

    def settle(self) -> None:
        """Ends an abort or a rollback when nobody is on the way any more."""
        states = {record.state for record in self.devices.values()}
        if self.rollout.phase is Phase.ABORTING and Execution.TRIAL not in states:
            self.go(Cause.SETTLE, "no trial is running")
        elif self.rollout.phase is Phase.ROLLING_BACK and Execution.RETURNING not in states:
            silent = sum(one.state is Execution.TIMED_OUT for one in self.devices.values())
            self.go(Cause.SETTLE, f"all devices are back{f' but {silent}' if silent else ''}")
            if silent:
                self.ask(f"{silent} devices have not said that they are back; look at them")
