"""The processes of the demo: started in order, online when they say so, all stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime import topics
from runtime.errors import StartError
from runtime.messages import Birth, decode_control
from runtime.ports import Message, MessageBus

STOP_S = 8.0


@dataclass(frozen=True, slots=True)
class Child:
    """A tier in a process of its own; its log is a file."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def last_line(self) -> str:
        """The end of the log, for an error message."""
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-1][:300] if lines else "(nothing was logged)"


class Children:
    """Starts tiers and stops every one of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []

    async def start(self, name: str, module: str, config: Path, flags: Sequence[str] = ()) -> None:
        """Starts ``python -m module`` with a settings file; ``flags`` are settings over it."""
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                "--config",
                str(config),
                "--die-with-parent",
                str(os.getpid()),
                *(word for flag in flags for word in ("--set", flag)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for the demo, which then stops everything in order.
                start_new_session=True,
                env=_clean_environment(),
            )
        self._children.append(Child(name, process, log))

    def check_alive(self) -> None:
        """Raises StartError when one of them has ended."""
        for child in self._children:
            if child.process.returncode is not None:
                raise StartError(
                    f"{child.name} ended with {child.process.returncode}: {child.last_line()} "
                    f"(log: {child.log})"
                )

    async def stop(self) -> None:
        """Ends all of them: asked first, then killed."""
        for child in reversed(self._children):
            if child.process.returncode is None:
                child.process.terminate()
        waits = [asyncio.ensure_future(child.process.wait()) for child in self._children]
        if waits:
            await asyncio.wait(waits, timeout=STOP_S)
        for child in self._children:
            if child.process.returncode is None:
                child.process.kill()
                await child.process.wait()
        self._children.clear()


def _clean_environment() -> dict[str, str]:
    """This environment without settings of other tiers that may be lying around."""
    return {name: text for name, text in os.environ.items() if not name.startswith("TIERWISE_")}


class Roster:
    """Who has said on the broker that it is online, with its HTTP address."""

    def __init__(self, bus: MessageBus, regions: tuple[str, ...]) -> None:
        self._births: dict[str, Birth] = {}
        for region in regions:
            bus.subscribe(topics.gateway_state(region), self._on_state, qos=1)
            bus.subscribe(topics.agent_state(region), self._on_state, qos=1)

    def _on_state(self, message: Message) -> None:
        state = decode_control(message.payload) if message.payload else None
        if isinstance(state, Birth) and state.http_base:
            self._births[state.site] = state

    def http_base(self, site: str) -> str:
        """Where a process listens."""
        return self._births[site].http_base

    async def wait_for(self, sites: set[str], children: Children, timeout_s: float) -> None:
        """Waits until all sites are online.

        Raises:
            StartError: one of them ended, or the time is over.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while missing := sites - self._births.keys():
            children.check_alive()
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(
                    f"not online after {timeout_s:.0f} s: {', '.join(sorted(missing))}"
                )
            await asyncio.sleep(0.02)
