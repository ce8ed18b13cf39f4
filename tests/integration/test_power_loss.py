"""The power fails before every single operation; whatever the disk has kept, the store holds.

``tests/fakes/simulated_files.py`` says what a disk may have kept. The counter-check takes away one
sync at a time and has to find that missed: a suite that cannot see a missing sync proves nothing.
"""

from __future__ import annotations

import ast
import logging
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

import runtime.adapters
from fakes.installs import (
    NOW_S,
    OTHER,
    SLOT,
    Journal,
    KilledError,
    WatchedStore,
    install,
    life,
    made,
    tried,
)
from fakes.simulated_files import Image, SimulatedFiles
from runtime.adapters.model_blobs import holds
from runtime.adapters.model_record import STATE
from runtime.adapters.model_store import ModelStore
from runtime.core.releases import Record
from runtime.core.selection import select_at_start
from runtime.errors import TierwiseError
from runtime.manifest import MANIFEST_NAME

ADAPTERS = Path(runtime.adapters.__path__[0])
LATER_S = NOW_S + 100_000
CONTENTS = {
    digest: one for version in range(1, 8) for digest, one in made(version).contents.items()
}


@dataclass(frozen=True)
class Crash:
    """What a disk kept, and what the device had been promised by then."""

    image: Image
    commits: int
    pieces: dict[str, int]
    at: str


@dataclass(frozen=True)
class Site:
    """A place in the store that syncs."""

    file: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.file}:{self.first}"


def sites() -> list[Site]:
    return [
        Site(path.name, node.lineno, node.end_lineno or node.lineno)
        for path in sorted(ADAPTERS.glob("model_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"sync_file", "sync_folder"}
    ]


def lived(is_synced: Callable[[], bool]) -> tuple[Journal, list[Crash]]:
    """One whole life, and every crash that it might have ended in, each once."""
    files, journal, chance = SimulatedFiles(), Journal(), random.Random(7)
    crashes: dict[str, Crash] = {}
    doom: list[tuple[str, str]] = []

    def step(what: str, path: str) -> None:
        pieces = dict(journal.pieces)
        for image in files.crashes(chance):
            crash = Crash(image, journal.commits, pieces, f"{what} {path}")
            crashes.setdefault(repr((image, journal.commits, sorted(pieces.items()))), crash)
        if (what, path) in doom:
            doom.clear()
            raise KilledError

    def opened() -> ModelStore:
        files.unlock()
        return WatchedStore(files, journal)

    files.on_step, files.is_synced = step, is_synced
    life(opened, lambda what, path: doom.append((what, path)))
    step("the end", "")
    return journal, list(crashes.values())


def violations(journal: Journal, crashes: list[Crash]) -> Iterator[str]:
    for number, crash in enumerate(crashes):
        for why in (*broken(journal, crash, goes_on=number % 8 == 0), *rotten(journal, crash)):
            yield f"{crash.at}: {why}"


def broken(journal: Journal, crash: Crash, *, goes_on: bool) -> Iterator[str]:
    files = SimulatedFiles(crash.image)
    try:
        store = ModelStore(files)
    except TierwiseError as error:
        yield str(error)
        return
    if store.record.commits not in {crash.commits, crash.commits + 1}:
        yield f"commit {store.record.commits} after {crash.commits}"
        return
    if store.record != journal.records[store.record.commits]:
        yield "a record that nobody has committed"
        return
    yield from lost_pieces(crash, files, store.record)
    for slot in (SLOT, OTHER):
        yield from mistaken(files, store, slot)
    if goes_on:
        install(store, made(7), 9)
        if tried(store).selection.release != made(7).release:
            yield "nothing can be installed any more"


def lost_pieces(crash: Crash, files: SimulatedFiles, record: Record) -> Iterator[str]:
    for digest in crash.pieces.keys() & record.blobs.keys():
        size, path = crash.pieces[digest], f"partial/{digest}"
        if files.size_bytes(f"blobs/{digest}") is not None:
            continue
        kept = b"" if files.size_bytes(path) is None else files.read(path, 0, size)
        if kept != CONTENTS[digest][:size]:
            yield f"a piece of {size} bytes is gone"


def mistaken(files: SimulatedFiles, store: ModelStore, slot: str) -> Iterator[str]:
    everything = {one for kept in store.record.slot(slot).installed for one in kept.blobs}
    expected = select_at_start(store.record, slot, everything, LATER_S)
    started = store.start(slot, LATER_S)
    if started.lost:
        yield f"{slot}: lost {started.lost}"
    if (started.selection.release, started.selection.origin) != (
        expected.release,
        expected.origin,
    ):
        yield f"{slot}: another release than the record says"
    release = started.selection.release
    if release is not None:
        placed = release.files | {MANIFEST_NAME: release.manifest}
        if not all(holds(files, f"folders/{release.name}/{n}", f) for n, f in placed.items()):
            yield f"{slot}: the folder is not whole"


def rotten(journal: Journal, crash: Crash) -> Iterator[str]:
    """The same crash, and state.json has rotted as well: the copy has to be as good."""
    state = crash.image.get(STATE)
    # Before the first commit has returned there is no copy, and nothing to be lost.
    if not isinstance(state, bytes) or not crash.commits:
        return
    try:
        record = ModelStore(SimulatedFiles(crash.image | {STATE: state[:-9]})).record
    except TierwiseError as error:
        yield f"rotten: {error}"
        return
    if record.commits not in {crash.commits, crash.commits + 1}:
        yield f"rotten: commit {record.commits} after {crash.commits}"
    elif record != journal.records[record.commits]:
        yield "rotten: a record that nobody has committed"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.mark.timeout(120)
def test_nothing_that_was_promised_is_lost_with_the_power() -> None:
    journal, crashes = lived(lambda: True)

    found = list(violations(journal, crashes))

    print(f"{len(crashes)} crash states examined, {len(found)} violations")  # noqa: T201
    assert found == []
    assert len(crashes) > 800


@pytest.mark.timeout(120)
@pytest.mark.parametrize("site", sites(), ids=str)
def test_every_single_sync_is_needed(site: Site) -> None:
    reached = []

    def is_synced() -> bool:
        code = sys._getframe(2)
        is_here = Path(code.f_code.co_filename).name == site.file
        if is_here and site.first <= code.f_lineno <= site.last:
            reached.append(site)
            return False
        return True

    journal, crashes = lived(is_synced)

    assert reached
    assert next(violations(journal, crashes), None) is not None
