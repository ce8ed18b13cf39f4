"""What this host is, read from the kernel; nothing is measured and no network is asked."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from hardware_profiles.limits import NO_LIMITS, Limits, read_limits
from hardware_profiles.reading import field_of, paths_in, text_of, whole_number

# What the kernel calls a feature of the processor -> what profiles call it.
_FEATURES = {
    "neon": "neon",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "avx2": "avx2",
    "avx_vnni": "vnni",
    "avx512_vnni": "vnni",
    "avx512f": "avx512",
}


@dataclass(frozen=True, slots=True)
class Host:
    """``board`` is the name in the device tree, empty where there is none (most x86 machines).

    ``num_cores`` are those that this process may use; ``memory_bytes`` is 0 where it is not told.
    ``l4t`` is the release line of NVIDIA's Linux for Tegra; ``usb`` are ids such as ``1a6e:089a``.
    """

    machine: str
    cpu: str
    board: str
    num_cores: int
    memory_bytes: int
    features: tuple[str, ...] = ()
    nvidia: tuple[str, ...] = ()
    l4t: str = ""
    usb: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS

    def __str__(self) -> str:
        name = self.board or self.cpu or "unknown processor"
        memory = f", {self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else ""
        return f"{name} ({self.machine}, {self.num_cores} cores{memory})"

    @property
    def usable_memory_bytes(self) -> int:
        """The host's memory or that of the container, whichever is less; 0 where not told."""
        known = [one for one in (self.memory_bytes, self.limits.memory_bytes) if one]
        return min(known, default=0)

    @property
    def usable_cores(self) -> float:
        """The cores that this process may use, or its container's share of them."""
        return min(self.num_cores, self.limits.cores or self.num_cores)


def detect(root: Path = Path("/")) -> Host:
    """The host; ``root`` is where ``proc``, ``sys`` and ``etc`` are found.

    What cannot be read stays empty.
    """
    cpuinfo = text_of(root / "proc/cpuinfo")
    meminfo = text_of(root / "proc/meminfo")
    named = set(field_of(cpuinfo, "Features", "flags").split())
    gpus = paths_in(root / "proc/driver/nvidia/gpus", "*/information")
    return Host(
        # The kernel's own word; before Linux 6.1 it is only told to those who ask the system.
        machine=text_of(root / "proc/sys/kernel/arch") or platform.machine(),
        cpu=field_of(cpuinfo, "model name"),
        board=text_of(root / "proc/device-tree/model"),
        num_cores=_num_cores(root, cpuinfo),
        memory_bytes=_kibibytes(field_of(meminfo, "MemTotal")) * 1024,
        features=tuple(dict.fromkeys(ours for name, ours in _FEATURES.items() if name in named)),
        nvidia=tuple(filter(None, (field_of(text_of(path), "Model") for path in gpus))),
        l4t=text_of(root / "etc/nv_tegra_release").partition("\n")[0],
        usb=_usb_ids(root / "sys/bus/usb/devices"),
        limits=read_limits(root),
    )


def _num_cores(root: Path, cpuinfo: str) -> int:
    if root != Path("/"):
        told = sum(line.partition(":")[0].strip() == "processor" for line in cpuinfo.splitlines())
        if told:
            return told
    return len(os.sched_getaffinity(0))


def _usb_ids(folder: Path) -> tuple[str, ...]:
    ids = (
        f"{text_of(path)}:{text_of(path.with_name('idProduct'))}"
        for path in paths_in(folder, "*/idVendor")
    )
    return tuple(sorted(set(ids)))


def _kibibytes(text: str) -> int:
    return max(0, whole_number(text.removesuffix(" kB").strip()) or 0)
