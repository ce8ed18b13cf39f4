"""Takes out of a root what a running tier does not need: shells, package manager, documentation.

Run once, at the end of an image's build, by the Python that stays. Afterwards nothing can be
installed there, and nothing that gets in finds a shell.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path("/")
# Python, its standard library and what it is linked with; the dynamic loader; certificates.
KEPT_PROGRAMS = {"python3", "python3.11"}
PROGRAM_FOLDERS = ("usr/bin", "usr/sbin")
UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/bash-completion",
    "usr/share/perl5",
    "usr/share/common-licenses",
    "usr/share/debconf",
    "usr/share/dpkg",
    "usr/lib/apt",
    "usr/lib/dpkg",
    "usr/lib/git-core",
    "usr/lib/init",
    "usr/lib/locale",
    "usr/lib/python3",
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/test",
    "usr/lib/python3.11/tkinter",
    "usr/lib/python3.11/turtledemo",
    "usr/lib/systemd",
    "usr/lib/udev",
    "etc/apt",
    "etc/dpkg",
    "etc/cron.daily",
    "var/lib/apt",
    "var/cache",
    "var/log",
    "root",
)
# Licences stay with what they are of: those of Debian's packages in one file.
LICENCES = ROOT / "usr/share/licences-of-debian-packages.txt"
STATE = ROOT / "var/lib/tierwise"
USER = 65_532
# x86_64-linux-gnu or aarch64-linux-gnu.
LIBRARIES = next((ROOT / "usr/lib").glob("*-linux-gnu"))


def needed_libraries() -> set[Path]:
    """Shared libraries of the system that Python, or something that it loads, is linked with."""
    loaded = [ROOT / "usr/bin/python3.11"]
    for folder in ("usr/lib/python3.11", "opt/tierwise"):
        loaded += (ROOT / folder).rglob("*.so*")
    # Looked up by name at run time: names of hosts and users, and the end of threads.
    by_name = [*LIBRARIES.glob("libnss_*.so*"), *LIBRARIES.glob("libgcc_s.so*")]
    ran = subprocess.run(
        ["/usr/bin/ldd", *map(str, [*loaded, *by_name])],
        capture_output=True,
        text=True,
        check=False,
    )
    words = [word for line in ran.stdout.splitlines() for word in line.split()]
    paths = {Path(word).resolve() for word in words if word.startswith("/") and ".so" in word}
    return paths | {one.resolve() for one in by_name}


def main() -> None:
    """Collects licences, then deletes."""
    needed = needed_libraries()
    with LICENCES.open("w") as collected:
        for found in sorted((ROOT / "usr/share/doc").glob("*/copyright")):
            collected.write(f"==== {found.parent.name}\n{found.read_text(errors='replace')}\n")
    perl = [*(ROOT / "usr/lib").glob("*/perl*"), *(ROOT / "usr/share").glob("perl*")]
    for folder in (*(ROOT / name for name in UNWANTED), *perl):
        shutil.rmtree(folder, ignore_errors=True)
    for name in PROGRAM_FOLDERS:
        for program in (ROOT / name).iterdir():
            if program.name not in KEPT_PROGRAMS:
                program.unlink()
    for library in LIBRARIES.rglob("*.so*"):
        if library.is_file() and library.resolve() not in needed:
            library.unlink()
    for library in LIBRARIES.rglob("*.so*"):
        if library.is_symlink() and not library.exists():
            library.unlink()
    (ROOT / "root").mkdir(mode=0o700, exist_ok=True)
    STATE.mkdir(parents=True, exist_ok=True)
    os.chown(STATE, USER, USER)
    STATE.chmod(0o700)
    (ROOT / "etc/passwd").write_text(f"tierwise:x:{USER}:{USER}:Tierwise:{STATE}:/nonexistent\n")
    (ROOT / "etc/group").write_text(f"tierwise:x:{USER}:\n")
    Path(__file__).unlink()


if __name__ == "__main__":
    main()
