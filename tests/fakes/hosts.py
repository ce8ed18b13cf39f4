"""File trees that look like the kernels of devices; contents as such devices show them."""

from __future__ import annotations

from pathlib import Path

ARM = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
A53 = "fp asimd evtstrm crc32 cpuid"
A57 = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
A76 = f"{A57} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
X86 = """processor\t: {number}
vendor_id\t: GenuineIntel
model name\t: {name}
flags\t\t: fpu vme de pse tsc msr sse sse2 avx avx2 fma avx_vnni

"""


def write(root: Path, files: dict[str, str]) -> Path:
    """A tree with these files."""
    for name, contents in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents)
    return root


def board(
    root: Path, model: str, *, cores: int = 4, features: str = A53, kib: int = 948_304
) -> Path:
    """An ARM board with a device tree."""
    cpu = ARM.format(features=features, part="0xd03") * cores
    return write(
        root,
        {
            "proc/sys/kernel/arch": "aarch64\n",
            "proc/cpuinfo": f"{cpu}Serial\t\t: 100000003ba4c0de\nModel\t\t: {model}\n",
            "proc/meminfo": f"MemTotal:         {kib} kB\nMemFree:          102400 kB\n",
            "proc/device-tree/model": f"{model}\0",
        },
    )


def x86(root: Path, name: str, *, cores: int = 4, kib: int = 16_157_344) -> Path:
    """A machine without a device tree."""
    return write(
        root,
        {
            "proc/sys/kernel/arch": "x86_64\n",
            "proc/cpuinfo": "".join(X86.format(number=n, name=name) for n in range(cores)),
            "proc/meminfo": f"MemTotal:       {kib} kB\n",
        },
    )
