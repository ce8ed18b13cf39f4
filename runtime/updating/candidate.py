"""A new model in a process of its own, before it may answer anything.

There it is found out whether it loads, and computes what it did where it was published.

Rules of this file:
  * what it does to its process (a crash, a leak, a hang) it does to nobody else, and is named;
  * callers go on as they are: inputs, outputs and labels must be those of the model that serves;
  * its process has the lowest priority once it has loaded.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from runtime.adapters.artifacts import ModelFolder, open_model
from runtime.adapters.engine_options import EngineOptions
from runtime.adapters.golden import MAX_GOLDEN_BYTES, check_golden
from runtime.adapters.model_process import (
    LOADER,
    ProcessBackend,
    ProcessOptions,
    start_members,
)
from runtime.adapters.model_worker import TimedBackend
from runtime.adapters.prototypes import read_prototypes
from runtime.adapters.worker_process import Cause
from runtime.catalogue import GOLDEN_NAME
from runtime.core.releases import Fault, Release
from runtime.errors import ArtifactError, BackendError, StartError
from runtime.local_model import LoadedMember, LocalModel
from runtime.manifest import ModelManifest
from runtime.ports import Clock

START_TIMEOUT_S = 60.0
# Some looks of the keeper at its process: memory that is over the limit is seen by then.
SETTLING_S = 0.2
_LOWEST = 19
_NO_MEMORY = ("bad_alloc", "bad allocation", "MemoryError", "Cannot allocate memory")


class UnfitError(ArtifactError):
    """A release is not to answer on this device; ``fault`` says why."""

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class Candidate:
    """A release that is loaded, checked, and ready to be compared.

    Blocks, and takes as long as the model does to load: make it off the event loop.

    Args:
        release: what it is.
        folder: where the store has laid it out.
        serves: the manifest of what serves.
        memory_limit_mb: of its process; 0: none.
        clock: for deadlines.
        loader: who loads models in the process.
        engine: what it is to run on: the same as when it serves, or golden outputs say little.

    Raises:
        UnfitError: it does not load, or is not what it should be.
    """

    def __init__(
        self,
        release: Release,
        folder: Path,
        serves: ModelManifest,
        *,
        memory_limit_mb: int,
        clock: Clock,
        loader: str = LOADER,
        engine: EngineOptions | None = None,
    ) -> None:
        self.release = release
        self._cause: Cause | None = None
        self._has_ended = threading.Event()
        try:
            found = open_model(folder)
            prototypes = read_prototypes(found)
        except ArtifactError as error:
            raise UnfitError(str(error), Fault.LOAD_FAILED) from error
        _check_same(found.manifest, serves)
        self._engine = engine or EngineOptions()
        backends = self._started(found, memory_limit_mb, loader)
        try:
            self._check(found, backends)
        except BaseException:
            for backend in backends:
                backend.close()
            raise
        members = [
            LoadedMember.of(member, backend, backend.typical_ms, may_block=True)
            for member, backend in zip(found.manifest.members, backends, strict=True)
        ]
        self.model = LocalModel(found.manifest, members, clock, prototypes=prototypes)
        for backend in backends:
            if isinstance(backend, ProcessBackend) and backend.pid is not None:
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, backend.pid, _LOWEST)

    @property
    def fault(self) -> UnfitError | None:
        """What became of its process, where that has ended."""
        if self._cause is None:
            return None
        if self._cause == "memory":
            return UnfitError("it took more memory than it may", Fault.OUT_OF_MEMORY)
        return UnfitError(f"its process ended: {self._cause}", Fault.LOAD_FAILED)

    def close(self) -> None:
        """Ends its process."""
        self.model.close()

    def _started(
        self, found: ModelFolder, memory_limit_mb: int, loader: str
    ) -> tuple[TimedBackend, ...]:
        options = ProcessOptions(
            engine=self._engine,
            memory_limit_mb=memory_limit_mb,
            start_timeout_s=START_TIMEOUT_S,
            loader=loader,
            on_end=self._on_end,
        )
        try:
            return start_members(found, options)
        except (ArtifactError, BackendError, StartError) as error:
            is_memory = any(word in str(error) for word in _NO_MEMORY)
            fault = Fault.OUT_OF_MEMORY if is_memory else Fault.LOAD_FAILED
            raise UnfitError(str(error), fault) from error

    def _check(self, found: ModelFolder, backends: tuple[TimedBackend, ...]) -> None:
        golden = found.folder / GOLDEN_NAME
        mismatch: ArtifactError | None = None
        if GOLDEN_NAME in self.release.files:
            try:
                with golden.open("rb") as file:
                    contents = file.read(MAX_GOLDEN_BYTES + 1)
            except OSError as error:
                raise UnfitError(f"{golden} cannot be read: {error}", Fault.FILES_LOST) from error
            try:
                check_golden(contents, found.manifest, backends, str(golden))
            except ArtifactError as error:
                mismatch = error
        # Why it answered nothing is known only when its process has ended.
        self._has_ended.wait(SETTLING_S)
        if self.fault is not None:
            raise self.fault
        if mismatch is not None:
            raise UnfitError(str(mismatch), Fault.GOLDEN_MISMATCH) from mismatch

    def _on_end(self, _: str, cause: Cause) -> None:
        """From the keeper's thread."""
        if cause != "closed":
            self._cause = cause
            self._has_ended.set()


OpenCandidate = Callable[[Release, Path, ModelManifest], Candidate]


def _check_same(new: ModelManifest, serves: ModelManifest) -> None:
    """Refuses what callers, or the tiers above, would have to be changed for."""
    for what, one, other in (
        ("name", new.name, serves.name),
        ("tier", new.tier, serves.tier),
        ("task", new.task, serves.task),
        ("inputs", new.inputs, serves.inputs),
        ("outputs", new.outputs, serves.outputs),
        ("labels", new.labels, serves.labels),
    ):
        if one != other:
            raise UnfitError(
                f"{new.name} {new.version} has another {what} than the model that serves: it "
                "needs a device that is set up for it",
                Fault.LOAD_FAILED,
            )
