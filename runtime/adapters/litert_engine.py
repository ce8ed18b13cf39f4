"""LiteRT itself: which package is here, and interpreters that are ready to be given tensors.

``ai-edge-litert`` is preferred. ``tflite-runtime``, its predecessor, is taken only beside numpy 1:
built for that, it raises SystemError in every interpreter beside numpy 2.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from runtime.adapters.litert_probe import probe
from runtime.core.providers import AUTO, Skipped
from runtime.errors import ArtifactError

# What it raises: RuntimeError and ValueError of its C++ side, the others of its Python side.
ENGINE_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    MemoryError,
    SystemError,
)
XNNPACK, CPU, EDGE_TPU = "XNNPACK", "CPU", "EdgeTPU"
ON_CPU = (XNNPACK, CPU)
EDGE_TPU_LIBRARY = "libedgetpu.so.1"
# An interpreter for each of the latest so many shapes: another batch size takes it a new one.
MAX_INTERPRETERS = 4
# The operator that the Edge TPU's compiler leaves in place of what it has compiled.
_EDGE_TPU_MARK = b"edgetpu-custom-op"
_DELEGATE_ENTRY = "tflite_plugin_create_delegate"
_INSTALL = "pip install 'tierwise[tflite]'"
_OLDEST_NUMPY_THAT_BREAKS = 2

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Package:
    """The package that runs .tflite files."""

    name: str
    version: str
    module: Any


def find_package(
    numpy_version: str = np.__version__,
    find: Callable[[str], object] = importlib.util.find_spec,
) -> Package:
    """The one that can be used here.

    Raises:
        ArtifactError: there is none; the text says which, and what to do.
    """
    if find("ai_edge_litert"):
        return _package("ai-edge-litert", "ai_edge_litert.interpreter")
    if not find("tflite_runtime"):
        raise ArtifactError(f"a .tflite file needs LiteRT, which is not installed: {_INSTALL}")
    if int(numpy_version.partition(".")[0]) >= _OLDEST_NUMPY_THAT_BREAKS:
        raise ArtifactError(
            f"tflite-runtime with numpy {numpy_version} raises SystemError in every Interpreter: "
            f"{_INSTALL}, or pip install 'numpy<2'"
        )
    return _package("tflite-runtime", "tflite_runtime.interpreter")


def _package(name: str, module: str) -> Package:
    return Package(name, metadata.version(name), importlib.import_module(module))


class Interpreters:
    """Interpreters of one file on one delegate, by the shapes of their inputs; not thread-safe.

    A new one for each shape: a delegate that has taken its operators may not be resized.
    """

    def __init__(self, package: Package, contents: bytes, threads: int, delegate: str) -> None:
        """Takes the delegate that is asked for.

        Args:
            package: what runs it.
            contents: the file.
            threads: of one inference.
            delegate: ``xnnpack``, ``none``, ``edgetpu`` or the path of a library.

        Raises:
            OSError: the library cannot be loaded (ValueError: it is no delegate).
        """
        self._package, self._contents, self._threads = package, contents, threads
        self._ready: OrderedDict[Shapes, Any] = OrderedDict()
        self._options: dict[str, Any] = {}
        self.runs_on: tuple[str, ...] = ON_CPU
        if delegate == "none":
            resolver = package.module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            self._options["experimental_op_resolver_type"] = resolver
            self.runs_on = (CPU,)
        elif delegate not in {AUTO, "xnnpack"}:
            library = EDGE_TPU_LIBRARY if delegate == "edgetpu" else delegate
            _check_delegate(library)
            self._options["experimental_delegates"] = [package.module.load_delegate(library)]
            self.runs_on = (EDGE_TPU if delegate == "edgetpu" else library, CPU)

    def new(self) -> Any:  # noqa: ANN401 - it ships no types
        """An interpreter of the shapes in the file, not ready to run."""
        return self._package.module.Interpreter(
            model_content=self._contents, num_threads=self._threads, **self._options
        )

    def of(self, indices: tuple[int, ...], shapes: Shapes) -> Any:  # noqa: ANN401 - the same
        """An interpreter that is ready for inputs of these shapes.

        Raises:
            RuntimeError: the model cannot take them (and others of ``ENGINE_ERRORS``).
        """
        ready = self._ready.get(shapes)
        if ready is not None:
            self._ready.move_to_end(shapes)
            return ready
        ready = self.new()
        usual = {one["index"]: tuple(one["shape"]) for one in ready.get_input_details()}
        for index, shape in zip(indices, shapes, strict=True):
            if usual[index] != shape:
                ready.resize_tensor_input(index, shape)
        ready.allocate_tensors()
        self._ready[shapes] = ready
        if len(self._ready) > MAX_INTERPRETERS:
            self._ready.popitem(last=False)
        return ready


def _check_delegate(library: str) -> None:
    """Looks before LiteRT does: its object of a library that failed fails again when it is freed.

    Raises:
        OSError: there is no such library.
        ValueError: it is no delegate.
    """
    if not hasattr(ctypes.CDLL(library), _DELEGATE_ENTRY):
        raise ValueError(f"{library} has no {_DELEGATE_ENTRY}: it is no delegate of LiteRT")


def is_for_edge_tpu(contents: bytes) -> bool:
    """Whether a file was compiled for an Edge TPU; no other processor runs it."""
    return _EDGE_TPU_MARK in contents


def open_interpreters(
    contents: bytes, threads: int, delegate: str, source: str
) -> tuple[Interpreters, Package, tuple[Skipped, ...]]:
    """Interpreters on the delegate that is wished for, or else on the CPU, and why not.

    Raises:
        ArtifactError: no package runs .tflite files here, or the file crashes the one there is.
    """
    package = find_package()
    if package.name == "tflite-runtime":
        probe(contents, source)
    wished = delegate
    if delegate == AUTO:
        wished = "edgetpu" if is_for_edge_tpu(contents) else "xnnpack"
    try:
        return Interpreters(package, contents, threads, wished), package, ()
    except ENGINE_ERRORS as error:
        why = f"{' '.join(str(error).split())[:200]}; is its library installed?"
        skipped = Skipped(EDGE_TPU if wished == "edgetpu" else wished, why)
        return Interpreters(package, contents, threads, "xnnpack"), package, (skipped,)
