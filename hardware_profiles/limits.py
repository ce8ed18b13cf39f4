"""What a container may use of its host: cgroup version 2, the least of all levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hardware_profiles.reading import number_of, text_of, whole_number

_CPU_MAX_WORDS = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory_bytes`` and ``cores`` (processors' time per time); None where there is no limit."""

    memory_bytes: int | None = None
    cores: float | None = None


NO_LIMITS = Limits()


def read_limits(root: Path = Path("/")) -> Limits:
    """The limits of this process's group and of those above it; what is garbage is no limit."""
    memory: list[int] = []
    cores: list[float] = []
    for folder in _folders(root):
        limit = number_of(folder / "memory.max")
        if limit is not None and limit > 0:
            memory.append(limit)
        words = text_of(folder / "cpu.max").split()
        if len(words) == _CPU_MAX_WORDS:
            quota, period = (whole_number(word) for word in words)
            if quota and period and quota > 0 and period > 0:
                cores.append(quota / period)
    return Limits(min(memory, default=None), min(cores, default=None))


def _folders(root: Path) -> Iterator[Path]:
    """The group's folder and all above it; seen from inside a container, the top one only."""
    base = root / "sys/fs/cgroup"
    yield base
    for line in text_of(root / "proc/self/cgroup").splitlines():
        hierarchy, _, path = line.partition("::")
        if hierarchy != "0":
            continue
        parts = PurePosixPath(path).parts[1:]
        if ".." not in parts:
            yield from (base.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1))
