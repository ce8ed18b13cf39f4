"""Loaders for a model's process that do what models should not; the first input says what."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from runtime.adapters.artifacts import ModelFolder
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.engines import load_member as load_usual
from runtime.adapters.fallback_backend import FallbackBackend
from runtime.adapters.model_worker import TimedBackend
from runtime.core.providers import CPU, PROVIDERS, EngineReport
from runtime.errors import BackendError
from runtime.messages import Tensors, TensorSpec

LOADER = "fakes.rogue_models:load_member"
WEDGE, EXIT, SEGFAULT, LEAK, LEAP, GARBAGE, FAIL, TALK = range(101, 109)
LEAK_BYTES = 20 << 20


@dataclass
class RogueBackend:
    """A real model that misbehaves when the first number of its input says so."""

    inner: TimedBackend
    leaked: list[bytearray] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.inner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.inner.outputs

    @property
    def typical_ms(self) -> float:
        return self.inner.typical_ms

    @property
    def report(self) -> EngineReport:
        return self.inner.report

    def run(self, inputs: Tensors) -> Tensors:
        first = next(iter(inputs.values()))
        deed = _DEEDS.get(int(np.float32(first.flat[0])))
        if deed is not None:
            deed(self.leaked)
        return self.inner.run(inputs)

    def close(self) -> None:
        self.inner.close()


def _wedge(_: list[bytearray]) -> None:
    time.sleep(3600)


def _exit(_: list[bytearray]) -> None:
    sys.stderr.write("out of cheese\n")
    sys.stderr.flush()
    os._exit(7)


def _segfault(_: list[bytearray]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _leak(leaked: list[bytearray]) -> None:
    leaked.append(bytearray(b"x" * LEAK_BYTES))


def _leap(leaked: list[bytearray]) -> None:
    try:
        leaked.append(bytearray(4 << 30))
    except MemoryError as error:
        raise BackendError("no memory") from error


def _garbage(_: list[bytearray]) -> None:
    """Writes where it should not, as a native library might."""
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"garbage " * 8)


def _fail(_: list[bytearray]) -> None:
    raise BackendError("the model is broken")


def _talk(_: list[bytearray]) -> None:
    os.write(1, b"talk " * 40_000)


_DEEDS = {
    WEDGE: _wedge,
    EXIT: _exit,
    SEGFAULT: _segfault,
    LEAK: _leak,
    LEAP: _leap,
    GARBAGE: _garbage,
    FAIL: _fail,
    TALK: _talk,
}


def load_member(model: ModelFolder, member: str, options: EngineOptions) -> RogueBackend:
    return RogueBackend(load_usual(model, member, options))


class Accelerated(RogueBackend):
    """On an accelerator that fails as soon as it is told to; behind it stands the CPU."""

    @property
    def report(self) -> EngineReport:
        return EngineReport("rogue", ("cuda",), (PROVIDERS["cuda"], CPU))


def load_accelerated(model: ModelFolder, member: str, options: EngineOptions) -> FallbackBackend:
    first = Accelerated(load_usual(model, member, options))
    return FallbackBackend(member, first, lambda: load_usual(model, member, options))


def load_dies(*_: object) -> NoReturn:
    """A process that ends while it starts, as with a missing library."""
    sys.stderr.write("libmissing.so.1: cannot open shared object file\n")
    sys.stderr.write(f"died at {time.monotonic()}\n")
    sys.stderr.flush()
    os._exit(127)


def load_wedges(*_: object) -> NoReturn:
    time.sleep(3600)
    raise AssertionError


def load_raises(*_: object) -> NoReturn:
    raise ZeroDivisionError("a bug in a loader")


def example(what: int = 0) -> Tensors:
    """One row for the linear model of tests."""
    return {"x": np.array([[what, 2, 3]], np.float32)}
