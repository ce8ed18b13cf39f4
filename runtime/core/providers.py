"""Which execution providers a session is to be tried with, and what became of the wish.

Rules of this file:
  * a wish is never an error: what is not there is left out and named, and the CPU is always last;
  * ``auto`` stands for what the hardware profile prefers, or else for the fastest that is there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

AUTO = "auto"
CPU = "CPUExecutionProvider"
# What runs elsewhere.
SERVER = "server"
# Short name to ONNX Runtime's; the fastest first, as a rule.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "acl": "ACLExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cpu": CPU,
}


class Skipped(msgspec.Struct, frozen=True):
    """What was wished for and is not used, and why."""

    name: str
    why: str


class EngineReport(msgspec.Struct, frozen=True):
    """What runs a model: the engine with its version, on what, and what was wished for.

    ``taken`` is in the order in which operators are placed; its first is where most of them run.
    """

    engine: str
    wished: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __str__(self) -> str:
        text = f"{self.engine} on {', '.join(self.taken) or 'nothing'}"
        if self.skipped:
            text += f" (not {'; not '.join(f'{one.name}: {one.why}' for one in self.skipped)})"
        return text

    def without(self, name: str, why: str) -> EngineReport:
        """The same after ``name`` was given up."""
        taken = tuple(one for one in self.taken if one != name)
        return msgspec.structs.replace(
            self, taken=taken, skipped=(*self.skipped, Skipped(name, why))
        )

    @property
    def is_accelerated(self) -> bool:
        """Whether something other than the CPU runs it here."""
        return bool(self.taken) and self.taken[0] not in {CPU, "CPU", "XNNPACK", SERVER}

    def after(self, before: EngineReport, why: str) -> EngineReport:
        """This one with the wish of the one before it, which was given up."""
        name = before.taken[0]
        return EngineReport(
            self.engine, before.wished, self.taken, (*before.skipped, Skipped(name, why))
        )


def plan(
    wished: Sequence[str], available: Collection[str], preferred: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[Skipped, ...]]:
    """What to try, in order, and what cannot be tried.

    Args:
        wished: ``auto``, short names, or ONNX Runtime's own; in order.
        available: what this ONNX Runtime has.
        preferred: what ``auto`` stands for; empty: every known one that is there.
    """
    chosen: list[str] = []
    skipped: list[Skipped] = []
    for wish in wished:
        if wish == AUTO and not preferred:
            chosen += [name for name in PROVIDERS.values() if name in available]
            continue
        for short in preferred if wish == AUTO else (wish,):
            name = PROVIDERS.get(short.lower(), short)
            if name in available:
                chosen.append(name)
            else:
                skipped.append(Skipped(name, "it is not in this onnxruntime"))
    return (*dict.fromkeys(one for one in chosen if one != CPU), CPU), tuple(dict.fromkeys(skipped))
