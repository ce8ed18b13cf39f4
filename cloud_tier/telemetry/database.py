"""Engines for SQLite and PostgreSQL that keep the same promises.

Rules of this file:
  * a transaction that writes takes SQLite's lock when it begins, so that what it has read stands;
  * what was committed outlives a crash of the process and of the machine;
  * whatever a database says against it is a ``StorageError``, and no password is in its text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from runtime.errors import StartError, StorageError

_BUSY_S = 10.0
_READS = "tierwise_reads"
# Of whoever adds up or deletes.
_LOCK = 7_429_318_205_002
# Values of one statement; SQLite takes at most 32766.
CHUNK = 500
# Rows of one statement that inserts: few statements, each of which is made ready once.
_SIZES = (256, 32, 4, 1)


def open_engine(url: str) -> Engine:
    """An engine; connects to nothing yet.

    Raises:
        StartError: the URL is none of SQLite or PostgreSQL, its driver is not installed, or the
            folder of its file cannot be made.
    """
    parsed = parse(url)
    try:
        if parsed.drivername == "sqlite":
            return _sqlite(parsed)
        return create_engine(
            parsed, pool_size=4, max_overflow=4, pool_pre_ping=True, pool_timeout=_BUSY_S,
            connect_args={"connect_timeout": int(_BUSY_S)},
        )  # fmt: skip
    except ModuleNotFoundError as error:
        raise StartError(
            f"{shown(parsed)} needs {error.name}: pip install 'tierwise[cloud,postgres]'"
        ) from error


def parse(url: str) -> URL:
    """The URL with the driver that is used here.

    Raises:
        StartError: it is no URL of SQLite or PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise StartError(
            "telemetry.url is no URL of a database: write postgresql+psycopg://user@host/name or "
            "sqlite:////folder/telemetry.sqlite"
        ) from error
    name = parsed.drivername.partition("+")[0]
    if name in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if name == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed.set(drivername="sqlite")
    raise StartError(f"{shown(parsed)}: telemetry is kept in a SQLite file or in PostgreSQL")


def shown(url: URL) -> str:
    """The URL as it may be told: without its password."""
    return url.render_as_string(hide_password=True)


def _sqlite(url: URL) -> Engine:
    path = Path(url.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    engine = create_engine(url, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA cache_size = -65536")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that is committed at the end.

    Raises:
        StorageError: it is not; nothing of it was written.
    """
    with refusals(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state and writes nothing.

    Raises:
        StorageError: the database does not answer.
    """
    with refusals(engine), engine.connect() as bare:
        connection = bare.execution_options(**{_READS: True})
        with connection.begin():
            if is_postgres(connection):
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield connection


@contextmanager
def refusals(engine: Engine) -> Iterator[None]:
    """Turns what SQLAlchemy and drivers raise into ``StorageError``."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        # SQLite's own where rows are fetched past SQLAlchemy (``fetching``).
        said = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise StorageError(f"{shown(engine.url)}: {said[:300]}") from error


def is_postgres(connection: Connection) -> bool:
    """Whether PostgreSQL is behind a connection; else it is SQLite."""
    return connection.dialect.name == "postgresql"


def is_alone(connection: Connection) -> bool:
    """Whether no other process adds up or deletes now; with SQLite none does."""
    if not is_postgres(connection):
        return True
    found = connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
    return bool(found.scalar_one())


def insert_all(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts many rows of the same columns, all of types that the driver takes as they are.

    SQLAlchemy looks at every value of every row on its way; of thousands of rows a second that is a
    third of what taking them costs. SQLite's driver lets other threads of Python run at every
    statement and then waits for its turn, so that a statement has many rows.
    """
    if not rows:
        return
    names = list(rows[0])
    if is_postgres(connection):
        statement = insert(table).compile(dialect=connection.dialect, column_keys=names)
        connection.exec_driver_sql(str(statement), list(rows))
        return
    values_of = itemgetter(*names)
    at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            values = tuple(chain.from_iterable(map(values_of, rows[at : at + size])))
            connection.exec_driver_sql(_statement(table.name, tuple(names), size), values)
            at += size


@lru_cache(maxsize=64)
def _statement(table: str, names: tuple[str, ...], num_rows: int) -> str:
    """SQLite's statement that inserts so many rows; names are those of ``tables``."""
    row = f"({', '.join('?' * len(names))})"
    columns = ", ".join(f'"{name}"' for name in names)
    return f'INSERT INTO "{table}" ({columns}) VALUES {", ".join([row] * num_rows)}'  # noqa: S608 - names of ours


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts the rows that are not there yet."""
    if rows:
        for_dialect = postgresql.insert if is_postgres(connection) else sqlite.insert
        connection.execute(for_dialect(table).on_conflict_do_nothing(), list(rows))


def is_inserted(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Inserts a row; False where it is there already, also by a transaction that ends first."""
    for_dialect = postgresql.insert if is_postgres(connection) else sqlite.insert
    returned = for_dialect(table).on_conflict_do_nothing().returning(*table.primary_key)
    return connection.execute(returned, row).first() is not None


def put(
    connection: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    adding: Sequence[str] = (),
    replacing: Sequence[str] = (),
) -> None:
    """Inserts rows; of those that are there, adds to some columns and replaces others."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    for_dialect = postgresql.insert if is_postgres(connection) else sqlite.insert
    given = for_dialect(table)
    changes: dict[str, Any] = {name: table.c[name] + given.excluded[name] for name in adding}
    changes.update({name: given.excluded[name] for name in replacing})
    connection.execute(given.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The values in pieces that fit into a statement."""
    for at in range(0, len(values), CHUNK):
        yield values[at : at + CHUNK]


def ids_of(connection: Connection, table: Table, digests: list[str]) -> dict[str, int]:
    """The ids of those rows of a table that are there, by their digests."""
    found: dict[str, int] = {}
    for some in chunks(digests):
        query = select(table.c.digest, table.c.id).where(table.c.digest.in_(some))
        found.update((digest, number) for digest, number in connection.execute(query))
    return found
