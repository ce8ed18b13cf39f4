"""A hierarchy in three namespaces, a device, a region and a cloud, that can be hurt and healed.

The region and the cloud have a broker each. The device reaches the region over the link ``near``,
the gateway reaches the cloud over the link ``far``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.network import Link, Network
from runtime.adapters.broker_config import mosquitto_config

NEAR, FAR = "10.99.1", "10.99.2"
BROKER_PORT = 1883
HTTP = {"edge": 8470, "gateway": 8471, "cloud": 8472}
MODULES = {"edge": "edge_agent", "gateway": "regional_gateway", "cloud": "cloud_tier"}
READY_S = 40.0
STOP_S = 12.0
TESTS = Path(__file__).parents[1]


class Program:
    """A process in a namespace, which can be killed, frozen and started again."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self._command, self._log = name, list(command), log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}
        environment["PYTHONPATH"] = f"{TESTS.parent}:{TESTS}"
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-1500:]

    def kill(self) -> None:
        """Ends it as a power cut does."""
        self.process.kill()
        self.process.wait(STOP_S)

    def freeze(self) -> None:
        """Stops it from running, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it run on."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Starts it again."""
        self.process = self._start()

    def close(self) -> None:
        """Ends it for good."""
        if self.is_running:
            self.thaw()
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()


@dataclass
class Answered:
    """What the caller wrote down of one request; ``elapsed_ms`` is None when nothing came."""

    request_id: str
    answered_id: str | None
    elapsed_ms: float | None
    status: int | None
    outcome: str | None
    reason: str | None
    tier: str | None


class Fleet:
    """A device, a gateway, a cloud and two brokers."""

    def __init__(self, folder: Path, *, disk_mb: int = 0, own_clock: bool = False) -> None:
        """Starts nothing yet.

        Args:
            folder: for settings, logs and state.
            disk_mb: the agent's state is on a disk of its own, so small; 0: it is not.
            own_clock: tiers have a clock that ``set_clock`` sets.
        """
        self.folder, self._disk_mb, self._own_clock = folder, disk_mb, own_clock
        self._clock = folder / "clock"
        self._exits = ExitStack()
        self.programs: dict[str, Program] = {}
        self.near: Link
        self.far: Link
        self.network: Network

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.network = stack.enter_context(Network(self.folder, "dev", "reg", "cld"))
            self._exits = stack
            self.near = self.network.link("dev", "reg", NEAR)
            self.far = self.network.link("reg", "cld", FAR)
            self.set_clock(0)
            if self._disk_mb:
                self._mount(stack, self.folder / "state" / "edge")
            self._broker("region_broker", "reg")
            self._broker("cloud_broker", "cld")
            self.tier("cloud", "cld", "127.0.0.1")
            self.tier("gateway", "reg", "127.0.0.1")
            self.tier("edge", "dev", f"{NEAR}.2")
            self._exits = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()

    def _mount(self, stack: ExitStack, folder: Path) -> None:
        folder.mkdir(parents=True)
        size = f"size={self._disk_mb}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
        stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)

    def fill_disk(self) -> None:
        """Leaves no room on the agent's disk."""
        ballast = self.folder / "state" / "edge" / "ballast"
        with ballast.open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(65_536))
                file.flush()

    def empty_disk(self) -> None:
        """Makes room again."""
        (self.folder / "state" / "edge" / "ballast").unlink()

    def set_clock(self, days_ahead: int) -> None:
        """Sets the wall clock of the tiers; time goes on from there, monotonic time as ever."""
        self._clock.write_text(str(days_ahead))

    def add(
        self,
        name: str,
        namespace: str,
        command: Sequence[str],
    ) -> Program:
        """Starts a program in a namespace; it ends with the fleet."""
        program = Program(
            name,
            [*self.network.within(namespace), *command],
            self.folder / f"{name}.log",
        )
        self.programs[name] = program
        self._exits.callback(program.close)
        return program

    def _broker(self, name: str, namespace: str) -> None:
        config = self.folder / f"{name}.conf"
        config.write_text(mosquitto_config("0.0.0.0", BROKER_PORT))
        found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            raise RuntimeError("mosquitto is not installed")
        self.add(name, namespace, [found, "-c", str(config)])

    def tier(self, kind: str, namespace: str, broker: str, *, name: str = "") -> Program:
        """Starts a tier."""
        name = name or kind
        config = self.folder / f"{name}.toml"
        config.write_text(_settings(kind, self.folder / "state" / name, broker))
        module = [MODULES[kind], "--config", str(config)]
        if self._own_clock:
            module = ["chaos.clocked", str(self._clock), *module]
        return self.add(name, namespace, [sys.executable, "-m", *module])

    def wait_ready(self) -> None:
        """Waits until a request climbs from the device to the cloud.

        Raises:
            RuntimeError: that does not happen.
        """
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            for program in self.programs.values():
                if not program.is_running:
                    raise RuntimeError(f"{program.name} ended: {program.log_tail()}")
            answers = self.ask(5, rate=10, budget_ms=1000, prefix=f"ready{time.monotonic_ns()}")
            if any(answer.tier == "cloud" for answer in answers):
                return
            time.sleep(0.2)
        raise RuntimeError(
            "nothing reaches the cloud: "
            + "\n".join(f"{one.name}: {one.log_tail()}" for one in self.programs.values())
        )

    def heal(self) -> None:
        """Undoes what was done to processes and links; what was killed is started again."""
        for link in (self.near, self.far):
            link.set("up", "delay 1", "jitter 0", "loss 0", "rate 0")
        for name, program in self.programs.items():
            if name.startswith("rogue"):
                program.close()
            elif program.is_running:
                program.thaw()
            else:
                program.restart()

    def caller(
        self, requests: int, *, rate: float, budget_ms: float, prefix: str
    ) -> tuple[subprocess.Popen[bytes], Path]:
        """Starts to ask the device; the answers are in the file when it has ended."""
        output = self.folder / f"{prefix}.jsonl"
        process = subprocess.Popen(
            [
                *self.network.within("dev"), sys.executable, "-m", "chaos.caller",
                "--url", f"http://127.0.0.1:{HTTP['edge']}",
                "--requests", str(requests), "--rate", str(rate),
                "--budget-ms", str(budget_ms), "--prefix", prefix, "--output", str(output),
            ],
            env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        )  # fmt: skip
        return process, output

    def ask(self, requests: int, *, rate: float, budget_ms: float, prefix: str) -> list[Answered]:
        """Asks and waits for all answers."""
        process, output = self.caller(requests, rate=rate, budget_ms=budget_ms, prefix=prefix)
        process.wait(requests / rate + READY_S)
        return answers_in(output)


def answers_in(path: Path) -> list[Answered]:
    """What the caller wrote."""
    found = []
    for line in path.read_text().splitlines():
        said: dict[str, Any] = json.loads(line)
        found.append(
            Answered(
                request_id=said["id"],
                answered_id=said.get("answered_id"),
                elapsed_ms=said.get("elapsed_ms"),
                status=said.get("status"),
                outcome=said.get("outcome"),
                reason=said.get("reason"),
                tier=said.get("tier"),
            )
        )
    return found


def _settings(kind: str, state: Path, broker: str) -> str:
    id_key = {"edge": "agent", "gateway": "gateway", "cloud": "cloud"}[kind]
    state.mkdir(parents=True, exist_ok=True)
    lines = [
        f'{id_key} = "{kind}-1"',
        f'region = "{"cloud" if kind == "cloud" else "plant"}"',
        f'[broker]\nhost = "{broker}"\nport = {BROKER_PORT}\nkeep_alive_s = 2',
        f"[http]\nport = {HTTP[kind]}",
        # Counts of decisions are to be at the cloud soon.
        f'[state]\nfolder = "{state}"\nrollup_interval_s = 2',
    ]
    if kind == "gateway":
        upstream = f'host = "{FAR}.2"\nport = {BROKER_PORT}\nkeep_alive_s = 2'
        lines.append(f"[upstream.broker]\n{upstream}")
    if kind != "cloud":
        # So that many requests climb: every fault of the way up is met often.
        lines.append("[model]\naccept_at = 0.95")
    return "\n".join(lines) + "\n"
