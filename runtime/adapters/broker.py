"""Chooses a broker that this machine has and starts it: for development, tests, demonstrations."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from runtime.adapters.broker_config import embedded_config, mosquitto_config
from runtime.adapters.broker_probe import wait_until_accepting
from runtime.adapters.dial import BrokerAddress, is_loopback
from runtime.adapters.embedded_broker import READY
from runtime.errors import StartError

if TYPE_CHECKING:
    from types import TracebackType

Preference = Literal["auto", "mosquitto", "embedded"]

MOSQUITTO_VARIABLE = "TIERWISE_MOSQUITTO"

# A daemon is often outside the PATH of an ordinary user.
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")

_INSTALL_MOSQUITTO = "apt-get install mosquitto"
_INSTALL_EMBEDDED = "pip install 'tierwise[demo]'"

_STOP_WITHIN_S = 3.0
_LOG_TAIL_CHARACTERS = 400

# Ties a program to the process that starts it, then becomes that program: the pid stays the same.
# ``preexec_fn`` could do it without a second start of Python, but may dead-lock beside threads.
_TIED_TO_PARENT = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class RunningBroker:
    """A broker process and where it listens; a context manager that stops it.

    Attributes:
        address: where to connect.
        kind: ``mosquitto`` or ``embedded``.
        version: of the broker.
        log_path: what it wrote.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], address: BrokerAddress, program: _Program, log: Path
    ) -> None:
        self._process = process
        self.address = address
        self.kind = program.kind
        self.version = program.version
        self.log_path = log

    @property
    def pid(self) -> int:
        """The process id of the broker itself."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the broker, gently at first; safe to call twice."""
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:  # frozen, for one
                self._process.kill()
        self._process.wait(_STOP_WITHIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class _Program:
    kind: Literal["mosquitto", "embedded"]
    version: str
    path: str
    ready_line: str = (
        ""  # in its log before the first connection is made; empty: nothing to wait for
    )


def start_broker(
    folder: Path, port: int = 0, host: str = "127.0.0.1", prefer: Preference = "auto"
) -> RunningBroker:
    """Starts a broker and returns once it accepts MQTT 5 connections.

    The environment variable ``TIERWISE_MOSQUITTO`` names a mosquitto to use instead of the one
    that is installed. On Linux the broker ends with the process that started it; for mosquitto that
    means with the thread, so call this from one that lives as long as the broker shall.

    Args:
        folder: where its configuration and its log are written.
        port: 0 takes a free one.
        host: an address of the loopback interface, because the broker lets everyone in.
        prefer: ``auto`` takes mosquitto if there is one and the embedded broker if not.

    Raises:
        StartError: no such broker, the port is in use, or it ended; the text says what to do.
    """
    host = _loopback(host)
    program = _choose(prefer)
    address = BrokerAddress(host, port or _free_port(host))
    _check_port(address)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{program.kind}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  the program was looked up, the arguments are ours
            _command(program, folder, address),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    broker = RunningBroker(process, address, program, log)
    try:
        wait_until_accepting(
            address,
            is_alive=lambda: broker.is_running,
            is_ready=lambda: program.ready_line in log.read_text(errors="replace"),
        )
    except StartError as error:
        broker.stop()
        tail = log.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:].strip()
        raise StartError(f"{program.kind} {error}. {log} says: {tail or 'nothing'}") from error
    except BaseException:
        broker.stop()
        raise
    return broker


def _command(program: _Program, folder: Path, address: BrokerAddress) -> list[str]:
    parent = str(os.getpid())
    if program.kind == "mosquitto":
        config = folder / "mosquitto.conf"
        config.write_text(mosquitto_config(address.host, address.port))
        command = [program.path, "-c", str(config)]
        if sys.platform != "linux":
            return command
        return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, parent, *command]
    config = folder / "embedded.toml"
    config.write_text(embedded_config(address.host, address.port))
    module = "runtime.adapters.embedded_broker"
    arguments = ["--port", str(address.port), "--config", str(config), "--parent-pid", parent]
    return [program.path, "-m", module, *arguments]


def _choose(prefer: Preference) -> _Program:
    if prefer in ("auto", "mosquitto"):
        path = find_mosquitto()
        if path is not None:
            return _Program("mosquitto", _mosquitto_version(path), path)
    if prefer == "mosquitto":
        raise StartError(f"there is no mosquitto on this machine: {_INSTALL_MOSQUITTO}")
    try:
        version = importlib.metadata.version("iotcore")
    except importlib.metadata.PackageNotFoundError as error:
        missing = "the embedded broker" if prefer == "embedded" else "a message broker"
        remedy = (
            _INSTALL_EMBEDDED
            if prefer == "embedded"
            else f"{_INSTALL_EMBEDDED} or {_INSTALL_MOSQUITTO}"
        )
        raise StartError(f"{missing} is not installed: {remedy}") from error
    return _Program("embedded", version, sys.executable, READY)


def find_mosquitto() -> str | None:
    """Where mosquitto is: as the environment names it, else on the path; None: nowhere.

    Raises:
        StartError: the environment names what cannot be run.
    """
    named = os.environ.get(MOSQUITTO_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise StartError(f"{MOSQUITTO_VARIABLE}={named} is no program that can be run")
        return found
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    return shutil.which("mosquitto", path=folders)


def _mosquitto_version(path: str) -> str:
    try:
        shown = subprocess.run(  # noqa: S603  found on the PATH or named by the operator
            [path, "-h"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"{path} does not run: {error}") from error
    first = shown.stdout.partition("\n")[0]
    if not first.startswith("mosquitto version "):
        said = (shown.stderr or shown.stdout).strip()[:_LOG_TAIL_CHARACTERS]
        raise StartError(f"{path} is no mosquitto that runs here: {said or 'it says nothing'}")
    return first.removeprefix("mosquitto version ").strip()


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    if not is_loopback(host):
        raise StartError(
            f"a broker without access rules would listen on {host}; use 127.0.0.1, "
            "or set up a broker of your own as deploy/ shows"
        )
    return host


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _check_port(address: BrokerAddress) -> None:
    # create_server sets SO_REUSEADDR, so connections of a broker that ended do not count.
    try:
        socket.create_server((address.host, address.port)).close()
    except OSError as error:
        raise StartError(
            f"cannot listen on {address} ({error.strerror}): stop what does, or use another port"
        ) from error
