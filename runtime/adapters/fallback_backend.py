"""A model on an accelerator, with the same model on the CPU behind it.

Rules of this file:
  * a run that fails is tried on the CPU. Where it works there, the accelerator is given up, once
    and for good, and that is told; where it fails too, its inputs are to blame, nothing changes;
  * the model is loaded on the CPU once, however often runs fail, and whether that works or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from runtime.adapters.model_worker import TimedBackend
from runtime.core.providers import EngineReport
from runtime.errors import ArtifactError, BackendError
from runtime.messages import Tensors, TensorSpec

OnFallback = Callable[[str, EngineReport], None]
_log = structlog.get_logger()


class FallbackBackend:
    """Implements ``runtime.ports.Backend``; ``on_fallback`` hears of it from a caller's thread."""

    def __init__(
        self,
        member: str,
        accelerated: TimedBackend,
        load_on_cpu: Callable[[], TimedBackend],
        on_fallback: OnFallback = lambda _member, _report: None,
    ) -> None:
        self._member = member
        self._serving = self._accelerated = accelerated
        self._load_on_cpu = load_on_cpu
        self._on_cpu: TimedBackend | None = None
        self._not_on_cpu: ArtifactError | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        self.report = accelerated.report
        self.on_fallback = on_fallback

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` takes."""
        return self._serving.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What ``run`` gives."""
        return self._serving.outputs

    @property
    def typical_ms(self) -> float:
        """Median time of one example, where it runs now."""
        return self._serving.typical_ms

    def run(self, inputs: Tensors) -> Tensors:
        """One inference, on the CPU where the accelerator cannot.

        Raises:
            BackendError: the model failed on both, or is closed.
        """
        serving = self._serving
        try:
            return serving.run(inputs)
        except BackendError as error:
            if serving is not self._accelerated or self._is_closed:
                raise
            outputs = self._behind(error).run(inputs)
            self._give_up(error)
            return outputs

    def close(self) -> None:
        """Frees both; safe to call twice."""
        with self._lock:
            self._is_closed = True
            self._accelerated.close()
            if self._on_cpu is not None:
                self._on_cpu.close()

    def _behind(self, error: BackendError) -> TimedBackend:
        """The same model on the CPU."""
        with self._lock:
            if self._is_closed:
                raise error
            if self._on_cpu is None and self._not_on_cpu is None:
                try:
                    self._on_cpu = self._load_on_cpu()
                except ArtifactError as cause:
                    self._not_on_cpu = cause
            if self._on_cpu is None:
                raise BackendError(f"{error}; and not on the CPU: {self._not_on_cpu}") from error
            return self._on_cpu

    def _give_up(self, error: BackendError) -> None:
        with self._lock:
            if self._on_cpu is None or self._serving is self._on_cpu or self._is_closed:
                return
            self._serving = self._on_cpu
            self.report = self._on_cpu.report.after(self._accelerated.report, str(error))
            # What runs on it elsewhere goes on; it is freed after that.
            self._accelerated.close()
        _log.warning(
            "model.engine_fell_back",
            member=self._member,
            why=str(error),
            runs_on=list(self.report.taken),
            remedy="it answers on the CPU from now on, more slowly; look after the accelerator and "
            "its driver, then start this tier again",
        )
        self.on_fallback(self._member, self.report)
