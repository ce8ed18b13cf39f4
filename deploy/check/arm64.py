"""Whether all of it is there for 64-bit ARM, and whether an agent answers on those processors.

    python deploy/check/arm64.py [--pictures 200] [--cpu cortex-a72 ...] [--json] [--keep FOLDER]

First the wheels: everything that the package needs has to be there for aarch64, ready-made. Then an
arm64 Debian is unpacked, and an agent answers bundled pictures there, under qemu-user, as each of
the processors; what it says is compared with what this machine says. A processor without an
instruction that a wheel needs ends with an illegal instruction here, too. What the kernel says of
the processor is written by this file: ONNX Runtime reads it. Times mean nothing.

Needs root and debootstrap (packages debootstrap, qemu-user-static, dpkg).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images import SOURCE, debian_server

_ARMV8 = "fp asimd evtstrm crc32 cpuid"
_ARMV82 = f"{_ARMV8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
# Part number and features, as the kernel of such a machine tells them.
PROCESSORS = {
    "cortex-a53": ("0xd03", _ARMV8),  # Raspberry Pi 3, Zero 2 W
    "cortex-a57": ("0xd07", _ARMV8),  # Jetson Nano
    "cortex-a72": ("0xd08", _ARMV8),  # Raspberry Pi 4
    "cortex-a76": ("0xd0b", _ARMV82),  # Raspberry Pi 5; near to the cores of Jetson Orin
    "neoverse-n1": ("0xd0c", _ARMV82),  # servers
}
EMULATOR = "qemu-aarch64-static"
# glibc of Debian 12 and Raspberry Pi OS 12; JetPack 6 has 2.35.
PLATFORMS = (
    "manylinux_2_35_aarch64",
    "manylinux_2_28_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux2014_aarch64",
)
TIMEOUT_S = 900.0
# Emulated, the last digit of a sum may be another.
TOLERANCE = 0.02


def main() -> None:
    """Resolves, unpacks, asks and compares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=200, help="so many are asked about")
    parser.add_argument(
        "--cpu", action="append", choices=list(PROCESSORS), help="as which processor"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--keep", type=Path, help="use this folder, and leave it there")
    arguments = parser.parse_args()
    for tool in ("debootstrap", EMULATOR, "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SystemExit(
                f"{tool} is missing: apt-get install debootstrap qemu-user-static dpkg"
            )
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="tierwise-arm64-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        wheels = resolve(folder / "site")
        root = unpack(folder / "root")
        here = asked([sys.executable], {"PYTHONPATH": str(SOURCE)}, arguments.pictures)
        result: dict[str, object] = {"wheels": wheels, "processors": {}}
        for cpu in arguments.cpu or PROCESSORS:
            there = emulated(root, folder / "site", cpu, arguments.pictures)
            result["processors"][cpu] = compared(here, there)  # type: ignore[index]
            tell(f"{cpu}: {result['processors'][cpu]}")  # type: ignore[index]
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(result, indent=2))
    bad = [cpu for cpu, one in result["processors"].items() if one["agreement"] < 1 - TOLERANCE]  # type: ignore[attr-defined]
    if bad:
        raise SystemExit(f"other answers than here on: {', '.join(bad)}")


def resolve(site: Path) -> list[str]:
    """Installs the wheel and all it needs for aarch64; their names and versions."""
    (wheel,) = (SOURCE / "dist").glob("tierwise-*.whl")
    if not site.exists():
        words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        words += ["--target", str(site), "--python-version", "3.11", "--only-binary=:all:"]
        words += [part for platform in PLATFORMS for part in ("--platform", platform)]
        subprocess.run([*words, str(wheel)], check=True)
    names = sorted(one.name.removesuffix(".dist-info") for one in site.glob("*.dist-info"))
    tell(f"{len(names)} packages for aarch64: {', '.join(names)}")
    return names


def unpack(root: Path) -> Path:
    """An arm64 Debian with Python, unpacked and not set up: nothing of it has to run for that."""
    if not root.exists():
        words = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase"]
        words += ["--include=python3", "bookworm", str(root), *debian_server()]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return root


def pretend(root: Path, cpu: str) -> None:
    """Writes what the kernel would tell of a machine with one such processor."""
    part, features = PROCESSORS[cpu]
    lines = {
        "processor": "0",
        "Features": features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": part,
        "CPU revision": "3",
    }
    (root / "proc").mkdir(exist_ok=True)
    text = "".join(f"{name}\t: {value}\n" for name, value in lines.items())
    (root / "proc/cpuinfo").write_text(f"{text}\n")
    cpus = root / "sys/devices/system/cpu"
    topology = (
        "cluster_cpus_list",
        "core_siblings_list",
        "package_cpus_list",
        "physical_package_id",
    )
    for name in ("possible", "present", "online", *(f"cpu0/topology/{one}" for one in topology)):
        (cpus / name).parent.mkdir(parents=True, exist_ok=True)
        (cpus / name).write_text("0\n")


def emulated(root: Path, site: Path, cpu: str, num_pictures: int) -> dict[str, object]:
    """What an agent says on that processor."""
    pretend(root, cpu)
    environment = {"PYTHONPATH": str(site), "PYTHONHOME": "/usr", "QEMU_CPU": cpu}
    python = [shutil.which(EMULATOR) or EMULATOR, "-L", str(root), str(root / "usr/bin/python3.11")]
    return asked(python, environment, num_pictures)


def asked(python: list[str], environment: dict[str, str], num_pictures: int) -> dict[str, object]:
    """Runs the questions with this Python."""
    words = [*python, str(Path(__file__).with_name("arm64_asks.py")), str(num_pictures)]
    done = subprocess.run(
        words,
        env={"PATH": os.environ.get("PATH", os.defpath)} | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd="/",
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    said: dict[str, object] = json.loads(done.stdout)
    return said


def compared(here: dict[str, object], there: dict[str, object]) -> dict[str, object]:
    """The share of pictures with the same label, and how far confidences are apart at most."""
    labels = list(zip(here["labels"], there["labels"], strict=True))  # type: ignore[call-overload]
    confidences = zip(here["confidences"], there["confidences"], strict=True)  # type: ignore[call-overload]
    return {
        "machine": there["machine"],
        "pictures": len(labels),
        "agreement": sum(one == other for one, other in labels) / len(labels),
        "confidence_apart": max(abs(one - other) for one, other in confidences),
    }


def tell(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
