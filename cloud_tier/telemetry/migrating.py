"""Brings the tables to this version: at start, or by ``tierwise store migrate``.

Under a lock that the database holds (SQLite's of the file, an advisory one of PostgreSQL), so that
of two processes that start together one does it and the other finds it done. All revisions are one
transaction: after a crash in between nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from cloud_tier.telemetry.database import is_postgres, reading, shown, writing
from runtime.errors import StartError

_SCRIPTS = "cloud_tier.telemetry:migrations"
# Any number that nobody else uses for an advisory lock of that database.
_LOCK = 7_429_318_205_001
_LOCK_WAIT = "60s"


class SchemaState(NamedTuple):
    """Revisions of a database and of this program; empty: no tables yet."""

    found: str
    wanted: str

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to do."""
        return self.found == self.wanted


def schema_state(engine: Engine) -> SchemaState:
    """How the tables of a database stand.

    Raises:
        StorageError: the database does not answer.
    """
    with reading(engine) as connection:
        return SchemaState(_found(connection), _wanted())


def migrate(engine: Engine) -> SchemaState:
    """Brings the tables to this version; returns how they stood.

    Raises:
        StartError: a later version of Tierwise has changed them.
        StorageError: the database does not answer, or refuses.
    """
    state = schema_state(engine)
    if state.is_current:
        return state
    with writing(engine) as connection:
        if is_postgres(connection):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        state = SchemaState(_found(connection), _wanted())
        if state.is_current:
            return state
        config = _config(connection)
        scripts = ScriptDirectory.from_config(config)
        if state.found and state.found not in {one.revision for one in scripts.walk_revisions()}:
            raise StartError(
                f"{shown(engine.url)} was written by a later version of Tierwise (its revision is "
                f"{state.found}, this one knows {state.wanted}): update this one"
            )
        command.upgrade(config, "head")
    return state


@contextmanager
def migrating_with(engine: Engine) -> Iterator[Config]:
    """What Alembic's commands take, on one transaction that is committed at the end.

    Raises:
        StorageError: the database does not answer, or refuses.
    """
    with writing(engine) as connection:
        yield _config(connection)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.attributes["connection"] = connection
    config.set_main_option("script_location", _SCRIPTS)
    config.set_main_option("path_separator", "os")
    return config


def _wanted() -> str:
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def _found(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""
