"""Network namespaces of a test, and links between them; all are gone when it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

_STOP_S = 5.0


def missing() -> str:
    """Why namespaces cannot be made here; empty when they can."""
    if os.geteuid() != 0:
        return "not root"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    probe = f"tw{os.getpid()}probe"
    for words in (["add", probe], ["exec", probe, "true"], ["del", probe]):
        try:
            done = subprocess.run(["ip", "netns", *words], capture_output=True, check=False)
        except FileNotFoundError:
            return "no iproute2"
        if done.returncode:
            return f"ip netns {words[0]}: {done.stderr.decode(errors='replace').strip()}"
    return ""


class Link:
    """A link whose faults can be changed; addresses are ``network.1`` and ``network.2``."""

    def __init__(self, first: str, second: str, network: str, folder: Path) -> None:
        self._control = folder / f"{network}.sock"
        self._process = subprocess.Popen(
            [
                sys.executable, str(Path(__file__).with_name("wanlink.py")), first, second,
                "--control", str(self._control), "--network", network,
            ],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"up\n":
            raise RuntimeError("the link did not come up")

    def set(self, *commands: str) -> None:
        """Changes faults, such as ``delay 20`` or ``ab down``."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            for command in commands:
                to.sendto(command.encode(), str(self._control))

    def close(self) -> None:
        """Takes the link away."""
        self._process.terminate()
        self._process.wait(_STOP_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Network:
    """Namespaces by short name, and links between them."""

    def __init__(self, folder: Path, *names: str) -> None:
        self._folder = folder
        self._names = {name: f"tw{os.getpid()}{name}" for name in names}
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for namespace in self._names.values():
                subprocess.run(["ip", "netns", "add", namespace], check=True)
                stack.callback(subprocess.run, ["ip", "netns", "del", namespace], check=False)
                subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
            self._exits = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()

    def within(self, name: str) -> list[str]:
        """What to put before a command so that it runs in a namespace."""
        return ["ip", "netns", "exec", self._names[name]]

    def link(self, first: str, second: str, network: str) -> Link:
        """Joins two namespaces."""
        link = Link(self._names[first], self._names[second], network, self._folder)
        self._exits.callback(link.close)
        return link
