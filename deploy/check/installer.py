"""Runs install.sh in a Debian root: first installation, upgrade, the way back, removal.

    python deploy/check/installer.py [--keep FOLDER]

Needs root and debootstrap. There is no systemd in such a root: the unit is read, and what it would
start is started by hand as another user, in the state folder that it would have.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from images import (
    SOURCE,
    check_machine,
    debian_root,
    environment_of_host,
    free_port,
    host_files,
    kernel_files,
)

UNIT = Path("etc/systemd/system/tierwise-agent.service")
READY_S = 60.0
NOBODY = 65_534


class Root:
    """A Debian root in which things are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str) -> str:
        """What a command prints.

        Raises:
            SystemExit: it fails; with what it said.
        """
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        with kernel_files(self.folder), host_files(self.folder):
            done = subprocess.run(
                ["/usr/sbin/chroot", str(self.folder), *words],
                env=environment | environment_of_host(),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def started(self) -> str:
        """Starts what the unit starts, as nobody, until it is ready; its version."""
        unit = (self.folder / UNIT).read_text()
        command = re.search(r"^ExecStart=(.+)$", unit, re.MULTILINE)
        if command is None:
            raise SystemExit("the unit starts nothing")
        state = self.folder / "var/lib/tierwise-agent"
        state.mkdir(parents=True, exist_ok=True)
        os.chown(state, NOBODY, NOBODY)
        url = f"http://127.0.0.1:{(port := free_port())}"
        environment = dict(re.findall(r"^Environment=(\w+)=(\S+)$", unit, re.MULTILINE))
        environment["TIERWISE_HTTP__PORT"] = str(port)
        enter = ["/usr/sbin/chroot", f"--userspec={NOBODY}:{NOBODY}", str(self.folder)]
        words = command[1].split()
        with kernel_files(self.folder):
            process = subprocess.Popen(
                [*enter, *words], env=environment, stderr=subprocess.PIPE, text=True
            )
            try:
                until_s = time.monotonic() + READY_S
                probe = [*enter, words[0], "health", "--url", url]
                while subprocess.run(probe, env={}, capture_output=True, check=False).returncode:
                    if process.poll() is not None or time.monotonic() > until_s:
                        process.kill()
                        raise SystemExit(f"it is not ready: {process.communicate()[1][-2000:]}")
                    time.sleep(0.2)
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=READY_S)
            said = subprocess.run(
                [*enter, words[0], "--version"], env={}, capture_output=True, text=True, check=True
            )
        return said.stdout.strip()

    def links(self) -> tuple[str, str]:
        """Which installation is in use, and which was before."""
        programs = self.folder / "opt/tierwise"
        return tuple(
            str((programs / name).readlink()) if (programs / name).is_symlink() else ""
            for name in ("current", "previous")
        )  # type: ignore[return-value]


def check(root: Root) -> None:
    """From nothing to installed, newer, back, and gone."""
    root.run("apt-get", "update", "-qq")
    root.run(
        "apt-get", "install", "-y", "-qq", "--no-install-recommends", "python3", "python3-venv"
    )
    (wheel,) = (SOURCE / "dist").glob("tierwise-*.whl")
    shutil.copy(wheel, root.folder / "tmp")
    shutil.copytree(SOURCE / "deploy", root.folder / "tmp/deploy", dirs_exist_ok=True)
    # As from a hardened root's shell: whom the service runs as has to get in all the same.
    strict = 'umask 077 && exec sh /tmp/deploy/install.sh "$@"'
    install = ("sh", "-c", strict, "install", "--role", "agent")
    named = ("--id", "camera-1", "--region", "plant-north", "--package", f"/tmp/{wheel.name}")  # noqa: S108

    tell("a first installation")
    root.run(*install, *named, "--broker", "gateway.example")
    settings = root.folder / "etc/tierwise/agent.toml"
    wanted = 'agent = "camera-1"\nregion = "plant-north"\n\n[broker]\nhost = "gateway.example"'
    expect(wanted in settings.read_text(), "settings are written")
    expect((root.folder / "etc/systemd/system/multi-user.target.wants").is_dir(), "it is enabled")
    tell(f"  it becomes ready: {root.started()}")

    tell("an upgrade leaves settings alone and keeps the version before")
    first = root.links()[0]
    settings.write_text(settings.read_text() + "# mine\n")
    time.sleep(1.1)  # Installations are named by the second.
    root.run(*install, *named)
    expect("# mine" in settings.read_text(), "settings are as they were")
    expect(root.links()[1] == first != root.links()[0], "the version before is kept")
    tell(f"  it becomes ready: {root.started()}")

    tell("settings that cannot be used change nothing")
    links = root.links()
    settings.write_text(settings.read_text() + "nonsense = 1\n")
    try:
        root.run(*install, *named)
    except SystemExit as refused:
        expect("the settings are not usable" in str(refused), "it says so")
    else:
        raise SystemExit("it was installed with settings that cannot be used")
    expect(root.links() == links, "what is in use is as it was")
    expect(len(list((root.folder / "opt/tierwise").glob("2*Z"))) == len(set(links)), "no rest")
    settings.write_text(settings.read_text().replace("nonsense = 1\n", ""))

    tell("back, and removed")
    root.run(*install, "--back")
    expect(root.links() == (links[1], links[0]), "the version before is in use")
    tell(f"  it becomes ready: {root.started()}")
    root.run(*install, "--uninstall")
    expect(not (root.folder / "opt/tierwise").exists(), "the program is gone")
    expect(not (root.folder / UNIT).exists(), "the unit is gone")
    expect(settings.exists(), "settings stay")


def expect(is_so: bool, what: str) -> None:  # noqa: FBT001 a condition
    """Ends where it is not so."""
    if not is_so:
        raise SystemExit(f"not so: {what}")
    tell(f"  {what}")


def tell(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Makes a root, and runs the installer in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="use this folder, and leave it there")
    arguments = parser.parse_args()
    check_machine()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="tierwise-installer-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        check(Root(debian_root(folder / "debian")))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    print("installer: installed, upgraded, refused, went back, removed")


if __name__ == "__main__":
    main()
