"""Experiments on the disk, beside rollouts: states under compare-and-swap, and their audit."""

from __future__ import annotations

import sqlite3

import msgspec

from cloud_tier.rollouts.committing import check_holder, note
from cloud_tier.rollouts.experiment_states import ExperimentState
from runtime.adapters.sqlite_file import SqliteFile
from runtime.errors import RolloutConflictError, RolloutError, UnknownRolloutError

MAX_EXPERIMENTS = 1000
_STATE = msgspec.json.Decoder(ExperimentState)


class ExperimentStore:
    """Everything raises ``StorageError`` where the disk fails."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def add(self, holder: str, state: ExperimentState) -> None:
        """Puts a new one in.

        Raises:
            RolloutConflictError: the id is taken, or another controller holds the store.
            RolloutError: there are too many.
        """

        def work(connection: sqlite3.Connection) -> None:
            check_holder(connection, holder)
            (num,) = connection.execute("SELECT count(*) FROM experiments").fetchone()
            if num >= MAX_EXPERIMENTS:
                raise RolloutError(f"{num} experiments are kept: no more are taken")
            try:
                connection.execute(
                    "INSERT INTO experiments VALUES (?, ?, ?, ?)",
                    (state.id, state.revision, state.started_s, msgspec.json.encode(state)),
                )
            except sqlite3.IntegrityError:
                raise RolloutConflictError(
                    f"there is an experiment {state.id} already: choose another id"
                ) from None
            who = f"operator:{state.by}"
            note(connection, (state.id, "", state.started_s, who, state.why, "", "running"))

        await self._file.run(work)

    async def save(
        self,
        holder: str,
        state: ExperimentState,
        at_s: float,
        *,
        who: str = "",
        why: str = "",
        now: str = "",
    ) -> ExperimentState:
        """Stores what it has become, and a line of the audit where there is something to say.

        Raises:
            RolloutConflictError: it was changed meanwhile, or another controller has it.
        """
        after = msgspec.structs.replace(state, revision=state.revision + 1)

        def work(connection: sqlite3.Connection) -> None:
            check_holder(connection, holder)
            changed = connection.execute(
                "UPDATE experiments SET revision = ?, body = ? WHERE id = ? AND revision = ?",
                (after.revision, msgspec.json.encode(after), after.id, state.revision),
            )
            if not changed.rowcount:
                raise RolloutConflictError(f"{after.id} was changed meanwhile: look, and ask again")
            if now:
                note(connection, (after.id, "", at_s, who, why, "", now))

        await self._file.run(work)
        return after

    async def get(self, experiment_id: str) -> ExperimentState:
        """One of them.

        Raises:
            UnknownRolloutError: there is none of this id.
        """
        found = await self._read("WHERE id = ?", (experiment_id,))
        if not found:
            raise UnknownRolloutError(
                f"there is no experiment {experiment_id!r}: `tierwise experiment list` has all"
            )
        return found[0]

    async def all(self) -> list[ExperimentState]:
        """Every one, the newest first."""
        return await self._read("ORDER BY created_s DESC, id", ())

    async def _read(self, where: str, values: tuple[object, ...]) -> list[ExperimentState]:
        query = f"SELECT body FROM experiments {where}"  # noqa: S608 - words of our own
        rows = await self._file.run(lambda connection: connection.execute(query, values).fetchall())
        return [_STATE.decode(body) for (body,) in rows]
