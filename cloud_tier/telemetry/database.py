"""Engines for SQLite and PostgreSQL that keep the same promises.

Rules of this file:
  * a transaction that writes takes SQLite's lock when it begins, so that what it has read stands;
  * what was committed outlives a crash of the process and of the machine;
  * whatever a database says against it is a ``StorageError``, and no password is in its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from runtime.errors import StartError, StorageError

_BUSY_S = 10.0
_READS = "tierwise_reads"
# Values of one statement; SQLite takes at most 32766.
CHUNK = 500


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
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise StorageError(f"{shown(engine.url)}: {said[:300]}") from error


def is_postgres(connection: Connection) -> bool:
    """Whether PostgreSQL is behind a connection; else it is SQLite."""
    return connection.dialect.name == "postgresql"


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts the rows that are not there yet."""
    if rows:
        insert = postgresql.insert if is_postgres(connection) else sqlite.insert
        connection.execute(insert(table).on_conflict_do_nothing(), list(rows))


def is_inserted(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Inserts a row; False where it is there already, also by a transaction that ends first."""
    insert = postgresql.insert if is_postgres(connection) else sqlite.insert
    returned = insert(table).on_conflict_do_nothing().returning(*table.primary_key)
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
    insert = for_dialect(table)
    changes: dict[str, Any] = {name: table.c[name] + insert.excluded[name] for name in adding}
    changes.update({name: insert.excluded[name] for name in replacing})
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=changes), list(rows))


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The values in pieces that fit into a statement."""
    for at in range(0, len(values), CHUNK):
        yield values[at : at + CHUNK]
