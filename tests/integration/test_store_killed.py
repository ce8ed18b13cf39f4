"""SIGKILL before every single step of a device's life; the next process finds a whole store."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import killed_store
from fakes.installs import NOW_S, OTHER, SLOT, install, life, made, tried
from runtime.adapters.artifacts import open_model
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.model_store import ModelStore
from runtime.core.releases import Record

# Nothing is synced in memory, and a killed process leaves the page cache behind all the same.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


class RecordingStore(ModelStore):
    seen: dict[int, Record]

    def commit(self, record: Record) -> None:
        super().commit(record)
        self.seen[self.record.commits] = self.record


@pytest.mark.timeout(120)
def test_a_store_is_whole_wherever_its_process_was_killed(folder: Path) -> None:
    seen = {0: Record()}

    def opened() -> ModelStore:
        store = RecordingStore(LocalFiles(folder / "unharmed"))
        store.seen = seen
        return store

    life(opened)
    lives = subprocess.run(
        [sys.executable, killed_store.__file__, folder],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
        # What this process imports, and not whatever lies beside the tests.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    num_killed = int(lives.stdout.splitlines()[-1])
    latest = -1

    for number in range(num_killed):
        with ModelStore(LocalFiles(folder / str(number))) as store:
            assert store.record == seen[store.record.commits]
            assert store.record.commits >= latest
            latest = store.record.commits
            for slot in (SLOT, OTHER):
                started = store.start(slot, NOW_S + 100_000)
                assert started.lost == ()
                release = started.selection.release
                assert (release is None) == (not store.record.slot(slot).installed)
                if release is not None and started.folder is not None:
                    assert set(open_model(started.folder).manifest.files) == set(release.files)
            install(store, made(7), 9)
            assert tried(store).selection.release == made(7).release
    print(f"{num_killed} lives were cut short")  # noqa: T201
    assert num_killed > 200
