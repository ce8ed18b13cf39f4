"""What this host is, read from the kernel; nothing is measured and no network is asked."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    """``board`` is the name in the device tree, empty where there is none (most x86 machines).

    ``num_cores`` are those that this process may use; ``memory_bytes`` is 0 where it is not told.
    """

    machine: str
    cpu: str
    board: str
    num_cores: int
    memory_bytes: int

    def __str__(self) -> str:
        name = self.board or self.cpu or "unknown processor"
        memory = f", {self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else ""
        return f"{name} ({self.machine}, {self.num_cores} cores{memory})"


def detect(root: Path = Path("/")) -> Host:
    """The host; ``root`` is where ``proc`` is found. What cannot be read stays empty."""
    return Host(
        machine=platform.machine(),
        cpu=_field(root / "proc/cpuinfo", "model name"),
        board=_text(root / "proc/device-tree/model").rstrip("\0 \n"),
        num_cores=len(os.sched_getaffinity(0)),
        memory_bytes=_kibibytes(_field(root / "proc/meminfo", "MemTotal")) * 1024,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _field(path: Path, name: str) -> str:
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _kibibytes(text: str) -> int:
    number = text.removesuffix(" kB").strip()
    return int(number) if number.isdigit() else 0
