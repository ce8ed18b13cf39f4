"""What the settings say about engines, in one value that also goes to a model's process."""

from __future__ import annotations

import msgspec

from runtime.core.providers import AUTO


class EngineOptions(msgspec.Struct, frozen=True):
    """How members are run.

    ``providers`` are ONNX execution providers as in ``runtime.core.providers``; ``preferred`` is
    what ``auto`` stands for on this hardware. ``delegate`` is that of LiteRT: ``auto``,
    ``xnnpack``, ``none``, ``edgetpu``, or the path of a delegate's library. ``run_timeout_ms``
    is what a server that is a member may take, on top of 20 times what it usually does.
    """

    threads: int = 1
    providers: tuple[str, ...] = ("cpu",)
    preferred: tuple[str, ...] = ()
    delegate: str = AUTO
    run_timeout_ms: float = 500.0
