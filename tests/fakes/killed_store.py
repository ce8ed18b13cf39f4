"""A device that is killed with SIGKILL before its N-th step, for every N; run as a program.

    python killed_store.py FOLDER

Each life is a process of its own, in ``FOLDER/<N>``. Prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fakes.installs import life
from runtime.adapters.filesystem import LocalFiles
from runtime.adapters.model_store import ModelStore


class MortalFiles(LocalFiles):
    """Files of a process that has ``budget`` more changes to live; half of a write counts."""

    budget = 0

    def _put(self, path: str, contents: bytes, flag: int) -> None:
        if MortalFiles.budget == 0:
            super()._put(path, contents[: len(contents) // 2], flag)
        spend()
        super()._put(path, contents, flag)

    def _sync(self, path: str, flag: int) -> None:
        spend()
        super()._sync(path, flag)

    def rename(self, old: str, new: str) -> None:
        spend()
        super().rename(old, new)

    def link(self, old: str, new: str) -> None:
        spend()
        super().link(old, new)

    def unlink(self, path: str) -> None:
        spend()
        super().unlink(path)

    def make_folder(self, path: str) -> None:
        spend()
        super().make_folder(path)

    def remove_folder(self, path: str) -> None:
        spend()
        super().remove_folder(path)

    def set_read_only(self, path: str) -> None:
        spend()
        super().set_read_only(path)


def spend() -> None:
    if MortalFiles.budget == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    MortalFiles.budget -= 1


def lived(folder: Path, budget: int) -> bool:
    """Whether a life of so many steps was long enough."""
    child = os.fork()
    if child == 0:
        MortalFiles.budget = budget
        life(lambda: ModelStore(MortalFiles(folder)))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status != 0:
        raise SystemExit(f"a life of {budget} steps ended with {status}")
    return True


def main() -> None:
    folder, budget = Path(sys.argv[1]), 0
    while not lived(folder / str(budget), budget):
        budget += 1
    sys.stdout.write(f"{budget}\n")


if __name__ == "__main__":
    main()
