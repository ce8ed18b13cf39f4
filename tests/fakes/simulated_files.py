"""Files in memory that forget what was not synced: what POSIX promises, and nothing more.

Contents are durable after ``sync_file``, names after ``sync_folder`` of their folder. ``crashes``
are the folders that a loss of power may leave behind at this moment: every file that was not synced
as before, as now, cut off, or of the right length and full of zeros; every change of a name that
was not synced made or not made, whatever happened to those before it.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Combinations at one moment; beyond, all single and opposite ones, and others by chance.
MAX_CRASHES = 64


@dataclass(eq=False)
class File:
    now: bytes = b""
    durable: bytes = b""
    modified_s: float = 0.0

    def leftovers(self) -> list[bytes]:
        if self.now == self.durable:
            return [self.now]
        start = self.durable if self.now.startswith(self.durable) else b""
        rest = len(self.now) - len(start)
        left = [self.durable, self.now, self.now[: len(start) + rest // 2], start + bytes(rest)]
        return list(dict.fromkeys(left))


Change = dict[str, "File | Folder | None"]


@dataclass(eq=False)
class Folder:
    now: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        self.changes.append(change)
        apply(self.now, change)


def apply(names: dict[str, File | Folder], change: Change) -> None:
    for name, entry in change.items():
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry


# A disk after a crash: nested folders of plain bytes.
Image = dict[str, "bytes | Image"]


class SimulatedFiles:
    """Implements ``runtime.ports_files.FileSystem``.

    ``on_step`` is called before every operation that changes something, with its name and path; it
    may raise. ``is_synced`` says whether a sync does anything.
    """

    def __init__(self, image: Image | None = None, free_bytes: int = 1 << 40) -> None:
        self.root = _loaded(image or {})
        self.free = free_bytes
        self.now_s = 0.0
        self.on_step: Callable[[str, str], None] = lambda _what, _path: None
        self.is_synced: Callable[[], bool] = lambda: True
        self.is_locked = False

    def lock(self, path: str) -> bool:
        del path
        if self.is_locked:
            return False
        self.is_locked = True
        return True

    def unlock(self) -> None:
        self.is_locked = False

    def make_folder(self, path: str) -> None:
        self.on_step("make_folder", path)
        folder, name = self._place(path)
        if name not in folder.now:
            folder.change({name: Folder()})

    def remove_folder(self, path: str) -> None:
        self.on_step("remove_folder", path)
        folder, name = self._place(path)
        if self._folder(path).now:
            raise OSError(errno.ENOTEMPTY, "not empty")
        folder.change({name: None})

    def write(self, path: str, contents: bytes) -> None:
        self.on_step("write", path)
        file = self._made(path)
        file.now, file.modified_s = contents, self.now_s

    def append(self, path: str, contents: bytes) -> None:
        self.on_step("append", path)
        file = self._made(path)
        file.now, file.modified_s = file.now + contents, self.now_s

    def read(self, path: str, offset_bytes: int, limit_bytes: int) -> bytes:
        return self._file(path).now[offset_bytes:][:limit_bytes]

    def size_bytes(self, path: str) -> int | None:
        try:
            return len(self._file(path).now)
        except FileNotFoundError:
            return None

    def modified_s(self, path: str) -> float:
        return self._file(path).modified_s

    def names(self, path: str) -> list[str]:
        return sorted(self._folder(path).now)

    def rename(self, old: str, new: str) -> None:
        self.on_step("rename", new)
        file = self._file(old)
        (old_folder, old_name), (new_folder, new_name) = self._place(old), self._place(new)
        if old_folder is new_folder:
            new_folder.change({new_name: file, old_name: None})
        else:
            new_folder.change({new_name: file})
            old_folder.change({old_name: None})

    def link(self, old: str, new: str) -> None:
        self.on_step("link", new)
        folder, name = self._place(new)
        folder.change({name: self._file(old)})

    def unlink(self, path: str) -> None:
        self.on_step("unlink", path)
        self._file(path)
        folder, name = self._place(path)
        folder.change({name: None})

    def set_read_only(self, path: str) -> None:
        self.on_step("set_read_only", path)

    def sync_file(self, path: str) -> None:
        self.on_step("sync_file", path)
        file = self._file(path)
        if self.is_synced():
            file.durable = file.now

    def sync_folder(self, path: str) -> None:
        self.on_step("sync_folder", path)
        folder = self._folder(path)
        if self.is_synced():
            folder.durable, folder.changes = dict(folder.now), []

    def free_bytes(self) -> int:
        return self.free

    def full_path(self, path: str) -> Path:
        return Path("/simulated") / path

    def crashes(self, chance: random.Random) -> Iterator[Image]:
        """What may be left; the first one has lost everything that was not synced."""
        files = [file for file in self._all(File) if file.now != file.durable]
        changes = [change for folder in self._all(Folder) for change in folder.changes]
        options = [len(file.leftovers()) for file in files] + [2] * len(changes)
        for choice in _choices(options, chance):
            left = dict(zip(map(id, files), choice, strict=False))
            made = {
                id(change)
                for change, is_made in zip(changes, choice[len(files) :], strict=True)
                if is_made
            }
            yield _after(self.root, left, made)

    def _all(self, kind: type) -> list:  # type: ignore[type-arg]
        found: dict[int, object] = {}
        waiting: list[File | Folder] = [self.root]
        while waiting:
            entry = waiting.pop()
            if id(entry) in found:
                continue
            found[id(entry)] = entry
            if isinstance(entry, Folder):
                waiting += [*entry.now.values(), *entry.durable.values()]
                waiting += [one for change in entry.changes for one in change.values() if one]
        return [entry for entry in found.values() if isinstance(entry, kind)]

    def _made(self, path: str) -> File:
        try:
            return self._file(path)
        except FileNotFoundError:
            folder, name = self._place(path)
            folder.change({name: (made := File())})
            return made

    def _place(self, path: str) -> tuple[Folder, str]:
        above, _, name = path.rpartition("/")
        return self._folder(above), name

    def _folder(self, path: str) -> Folder:
        entry: File | Folder | None = self.root
        for part in filter(None, path.split("/")):
            entry = entry.now.get(part) if isinstance(entry, Folder) else None
        if not isinstance(entry, Folder):
            raise FileNotFoundError(errno.ENOENT, f"no folder {path}")
        return entry

    def _file(self, path: str) -> File:
        folder, name = self._place(path)
        entry = folder.now.get(name)
        if not isinstance(entry, File):
            raise FileNotFoundError(errno.ENOENT, f"no file {path}")
        return entry


def _choices(options: list[int], chance: random.Random) -> Iterator[tuple[int, ...]]:
    num = 1
    for option in options:
        num *= option
    if num <= MAX_CRASHES:
        yield from itertools.product(*map(range, options))
        return
    # 0 is lost, 1 is kept.
    none, every = [0] * len(options), [1] * len(options)
    wanted = [tuple(none), tuple(every)]
    for at, option in enumerate(options):
        wanted += [(*none[:at], one, *none[at + 1 :]) for one in range(1, option)]
        others = (one for one in range(option) if one != 1)
        wanted += [(*every[:at], one, *every[at + 1 :]) for one in others]
    while len(wanted) < MAX_CRASHES:
        wanted.append(tuple(map(chance.randrange, options)))
    yield from dict.fromkeys(wanted)


def _after(folder: Folder, left: dict[int, int], made: set[int]) -> Image:
    names = dict(folder.durable)
    for change in folder.changes:
        if id(change) in made:
            apply(names, change)
    image: Image = {}
    for name, entry in names.items():
        if isinstance(entry, Folder):
            image[name] = _after(entry, left, made)
        else:
            image[name] = entry.leftovers()[left.get(id(entry), 0)]
    return image


def _loaded(image: Image) -> Folder:
    folder = Folder()
    for name, entry in image.items():
        folder.now[name] = File(entry, entry) if isinstance(entry, bytes) else _loaded(entry)
    folder.durable = dict(folder.now)
    return folder
