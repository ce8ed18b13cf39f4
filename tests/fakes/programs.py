"""Tiers as programs of their own, started as an operator starts them and always ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from fakes.ports import free_port
from fakes.waiting import eventually, eventually_sync
from runtime.adapters.broker import RunningBroker, start_broker
from runtime.adapters.dial import BrokerAddress

MODULES = {"edge": "edge_agent", "gateway": "regional_gateway", "cloud": "cloud_tier"}
READY_S = 30.0
# Nothing is ever sure enough, so that every request has to climb to the top.
UNSURE = "model.accept_at=1.0"


def settings_text(kind: str, name: str, folder: Path, broker: BrokerAddress, http: int) -> str:
    """Settings of one tier as TOML."""
    id_key = {"edge": "agent", "gateway": "gateway", "cloud": "cloud"}[kind]
    at = f'host = "{broker.host}"\nport = {broker.port}\nkeep_alive_s = 2\n'
    lines = [f'{id_key} = "{name}"']
    lines.append(f'region = "{"cloud" if kind == "cloud" else "plant"}"')
    lines.append(f"[broker]\n{at}")
    if kind == "gateway":
        lines.append(f"[upstream.broker]\n{at}")
    if kind == "cloud":
        lines.append("[operators]\nport = 0")
    lines.append(f"[http]\nport = {http}")
    lines.append(f'[state]\nfolder = "{folder / name}"')
    return "\n".join(lines) + "\n"


class TierProgram:
    """One tier in a process."""

    def __init__(
        self, kind: str, name: str, folder: Path, broker: BrokerAddress, *flags: str
    ) -> None:
        self.kind, self.name = kind, name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.state = folder / name
        self._config = folder / f"{name}.toml"
        self._config.write_text(settings_text(kind, name, folder, broker, self.port))
        self._log = folder / f"{name}.log"
        self.flags = flags
        self._flags = [part for flag in flags for part in ("--set", flag)]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    MODULES[self.kind],
                    "--config",
                    str(self._config),
                    "--die-with-parent",
                    str(os.getpid()),
                    *self._flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")},
            )

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    @property
    def operator_file(self) -> str:
        """Of a cloud tier: where its operators' port is, and what opens it."""
        return str(self.state / "operator.json")

    def kill(self) -> None:
        """Ends it as a power cut does."""
        self.process.kill()
        self.process.wait(10)

    def restart(self) -> None:
        """Starts it again with the same settings."""
        self.process = self._start()

    def stop(self) -> int:
        """Asks it to end and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def wait_ended(self) -> int:
        """Waits until it ends by itself; returns the exit code."""
        eventually_sync(lambda: self.process.poll() is not None, READY_S)
        return self.process.wait(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Hierarchy:
    """Brokers and tiers in a folder; ``stack`` ends them all."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack = folder, stack
        self.address = BrokerAddress("127.0.0.1", free_port())

    def broker(self) -> RunningBroker:
        """The broker, also after another one has ended."""
        folder = self.folder / f"broker-{time.monotonic_ns()}"
        running = start_broker(folder, port=self.address.port)
        self._stack.callback(running.stop)
        return running

    def tier(self, kind: str, name: str, *flags: str) -> TierProgram:
        """A tier at that broker, with ``--set`` before each of the flags."""
        return self._stack.enter_context(TierProgram(kind, name, self.folder, self.address, *flags))

    def all_tiers(self) -> tuple[TierProgram, TierProgram, TierProgram]:
        """An agent, a gateway and a cloud; all but the last are unsure of everything."""
        cloud = self.tier("cloud", "cloud-1")
        gateway = self.tier("gateway", "gateway-1", UNSURE)
        return self.tier("edge", "agent-1", UNSURE), gateway, cloud


class Asker:
    """Asks programs over HTTP."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ready(self, *programs: TierProgram, status: int = 200) -> None:
        """Waits until all say that they are ready."""

        async def one(program: TierProgram) -> None:
            deadline_s = asyncio.get_running_loop().time() + READY_S
            while await self._status(f"{program.url}/v2/health/ready") != status:
                assert program.process.poll() is None, program.log
                assert asyncio.get_running_loop().time() < deadline_s, program.log
                await asyncio.sleep(0.05)

        await asyncio.gather(*(one(program) for program in programs))

    async def _status(self, url: str) -> int:
        try:
            async with self._session.get(url) as response:
                return response.status
        except aiohttp.ClientError:
            return 0

    async def infer(
        self, program: TierProgram, *, budget_ms: float = 1000, **parameters: Any
    ) -> dict[str, Any]:
        """The parameters of the answer to a grey picture, of which every model is unsure."""
        tensor = {
            "name": "image",
            "shape": [1, 28, 28],
            "datatype": "FP32",
            "data": [0.5] * 784,
        }
        body = {
            "inputs": [tensor],
            "parameters": {"remaining_ms": budget_ms, **parameters},
        }
        async with self._session.post(
            f"{program.url}/v2/models/fashion/infer", json=body
        ) as response:
            said = await response.json()
        assert response.status == 200, said
        answer: dict[str, Any] = said["parameters"]
        answer["provenance"] = json.loads(answer["provenance"])
        return answer

    async def answered_by(self, program: TierProgram, tier: str) -> dict[str, Any]:
        """Asks until this tier is the one that answers."""
        answers: list[dict[str, Any]] = [{}]

        async def ask() -> None:
            while answers[-1].get("tier") != tier:
                answers.append(await self.infer(program))
                await asyncio.sleep(0.02)

        task = asyncio.create_task(ask())
        try:
            await eventually(task.done, READY_S)
            await task
        finally:
            task.cancel()
        return answers[-1]
