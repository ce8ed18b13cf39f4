"""A real PostgreSQL of this machine's packages, on a port of loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from fakes.ports import free_port
from fakes.waiting import eventually_sync

_START_S = 60.0
_OPTIONS = (
    "fsync=off", "synchronous_commit=on", "full_page_writes=off", "max_connections=40",
    "shared_buffers=16MB", "listen_addresses=127.0.0.1",
)  # fmt: skip


class Postgres:
    """A server that is running; every test has a database of its own on it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://tierwise@127.0.0.1:{self._port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self._port,
            user="tierwise",
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database."""
        name = f"test_{uuid4().hex}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield self.url(name)
        finally:
            with self.connect() as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def programs() -> Path:
    """Where ``initdb`` and ``postgres`` are; a skipped test where they are not, a failure in CI."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    if found or named:
        return Path(found[-1] if found else str(named)).parent
    text = "no PostgreSQL on this machine: apt-get install postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


def _as_nobody() -> list[str]:
    """The server refuses to be run by root."""
    if os.getuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _is_up(server: Postgres, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server in a folder of its own, ended by its pid."""
    bin_folder, as_nobody = programs(), _as_nobody()
    # A short path, because sockets have none of more than 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="tierwise-pg-", dir="/tmp"))
    if as_nobody:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
    data, log = folder / "data", folder / "log"
    try:
        subprocess.run(
            [*as_nobody, bin_folder / "initdb", "-D", data, "-U", "tierwise", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync"],
            cwd=folder, check=True, capture_output=True, timeout=_START_S,
        )  # fmt: skip
        port = free_port()
        options = [word for option in _OPTIONS for word in ("-c", option)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*as_nobody, bin_folder / "postgres", "-D", data, "-p", str(port), "-k", folder,
                 *options],
                cwd=folder, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            server = Postgres(port)
            eventually_sync(lambda: _is_up(server, process, log), _START_S)
            yield server
        finally:
            # Immediate: what it holds is of tests.
            process.send_signal(signal.SIGQUIT)
            process.wait(30)
    finally:
        shutil.rmtree(folder)
