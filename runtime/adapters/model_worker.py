"""The process of one model: loads it, then runs what comes over a socket, one request at a time.

    python -m runtime.adapters.model_worker --fd N --parent-pid PID

It is started by ``runtime.adapters.worker_process`` and ends with whoever started it: at the end of
the stream, and on Linux also when it is busy and the parent is gone. SIGTERM and SIGINT are left to
the parent, because a supervisor or a terminal sends them to all processes of a service at once,
and the parent still drains.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.tensor_frames import Channel, Frame
from runtime.core.providers import EngineReport
from runtime.errors import BackendError, TierwiseError
from runtime.manifest import decode_manifest
from runtime.messages import TensorSpec
from runtime.ports import Backend
from runtime.supervise import stop_with_parent

# Beside what is resident: code, stacks and what an allocator has reserved. A backstop for one leap;
# the parent watches what is resident.
_LIMIT_FACTOR = 2
_LIMIT_EXTRA_MB = 256


class TimedBackend(Backend, Protocol):
    """A backend that knows what a run of one example takes."""

    @property
    def typical_ms(self) -> float:
        """Median time of one example."""
        ...

    @property
    def report(self) -> EngineReport:
        """What runs it now."""
        ...


Loader = Callable[[ModelFolder, str, EngineOptions], TimedBackend]


class Start(msgspec.Struct, frozen=True):
    """What a process needs to load its model; ``manifest`` is the one that its parent verified.

    ``loader`` is ``module:function``, a ``Loader``. ``memory_limit_mb`` 0 is none.
    """

    folder: str
    manifest: bytes
    member: str
    engine: EngineOptions
    loader: str
    memory_limit_mb: int = 0


class Ready(msgspec.Struct, frozen=True):
    """What a process says once its model is warm."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    typical_ms: float
    report: EngineReport


def main(arguments: list[str] | None = None) -> int:
    """Serves until the stream ends, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m runtime.adapters.model_worker")
    parser.add_argument("--fd", type=int, required=True, help="our end of the socket pair")
    parser.add_argument("--parent-pid", type=int, required=True)
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    stop_with_parent(options.parent_pid, signal.SIGKILL)
    with socket.socket(fileno=options.fd) as end:
        return _serve(Channel(end))


def _serve(channel: Channel) -> int:
    started = channel.receive()
    if started is None:
        return 0
    start = msgspec.msgpack.decode(started[0].data, type=Start)
    try:
        backend = _load(start)
    except TierwiseError as error:
        channel.send(Frame("failed", text=str(error), code=error.code))
        return 1
    report = backend.report
    ready = Ready(backend.inputs, backend.outputs, backend.typical_ms, report)
    channel.send(Frame("ready", data=msgspec.msgpack.encode(ready)))
    while (asked := channel.receive()) is not None:
        try:
            outputs = backend.run(asked[1])
        except BackendError as error:
            channel.send(Frame("failed", text=str(error), code=error.code))
        else:
            # Only when an accelerator was given up: news for whoever counts that.
            news = msgspec.msgpack.encode(backend.report) if backend.report != report else b""
            report = backend.report
            channel.send(Frame("done", data=news), outputs)
    return 0


def _load(start: Start) -> TimedBackend:
    _limit_memory(start.memory_limit_mb)
    module, _, name = start.loader.partition(":")
    load: Loader = getattr(importlib.import_module(module), name)
    manifest = decode_manifest(start.manifest, start.folder)
    return load(ModelFolder(Path(start.folder), manifest), start.member, start.engine)


def _limit_memory(limit_mb: int) -> None:
    """Makes one leap of a leaking model fail; RLIMIT_AS would count what is never touched."""
    if not limit_mb or not sys.platform.startswith("linux"):
        return
    import resource  # noqa: PLC0415 - not on every platform

    limit_bytes = (_LIMIT_FACTOR * limit_mb + _LIMIT_EXTRA_MB) << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    sys.exit(main())
