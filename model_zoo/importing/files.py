"""Reads a model file of another project: its bytes, and which engine runs them.

What a file is follows from how it starts. A name that says something else is an error: one of them
is wrong, and nobody here can tell which.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from runtime.errors import ArtifactError
from runtime.manifest import Engine

SUFFIXES: dict[str, Engine] = {".onnx": "onnxruntime", ".tflite": "litert", ".lite": "litert"}
# The file, the engine's own copy of the weights, and room to work.
MEMORY_FACTOR = 3
_TFLITE_AT, _TFLITE = 4, b"TFL3"
_ONNX_FIELDS = (b"\x08", b"\x12", b"\x1a", b"\x3a", b"\x42")
# How files start that are often taken for models, or that models are exported from.
_OTHERS = (
    (b"<!doctype html", "an HTML page (a login or error page?): download it again"),
    (b"<html", "an HTML page (a login or error page?): download it again"),
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"),
    (b"pk\x03\x04", "a zip archive, as PyTorch (.pt) and Keras save: export it to ONNX or TFLite"),
    (b"\x89hdf", "an HDF5 file, as Keras saves: export it to TFLite, or to ONNX with tf2onnx"),
    (b"\x80\x02", "a pickle, which is never loaded here: export it to ONNX, e.g. with skl2onnx"),
    (b"\x80\x03", "a pickle, which is never loaded here: export it to ONNX, e.g. with skl2onnx"),
    (b"\x80\x04", "a pickle, which is never loaded here: export it to ONNX, e.g. with skl2onnx"),
    (b"\x80\x05", "a pickle, which is never loaded here: export it to ONNX, e.g. with skl2onnx"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)
_EXTERNAL = ("external", "model_path must not be empty")


def read_model_file(path: Path) -> tuple[bytes, Engine]:
    """The contents of a file, and what runs it.

    Raises:
        ArtifactError: it is missing, empty, too large, no model, or not what its name says.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ArtifactError(f"{path} is not a file; give the .onnx or .tflite file itself")
        available = available_memory_bytes()
        if available and size * MEMORY_FACTOR > available:
            raise ArtifactError(
                f"{path} has {size:,} bytes; loading it takes about {MEMORY_FACTOR} times as much, "
                f"and {available:,} bytes of memory are free here"
            )
        contents = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from error
    engine = _engine_of(path, contents)
    said = SUFFIXES.get(path.suffix.lower())
    if said is not None and said != engine:
        kinds: dict[Engine, str] = {"onnxruntime": "an ONNX model", "litert": "a TFLite model"}
        raise ArtifactError(
            f"{path} is {kinds[engine]} by its contents, and its name says otherwise; rename it if "
            "it is the file you mean"
        )
    return contents, engine


def _engine_of(path: Path, contents: bytes) -> Engine:
    if not contents:
        raise ArtifactError(f"{path} is empty: export or download it again")
    start = contents[:64].lstrip().lower()
    for prefix, what in _OTHERS:
        if start.startswith(prefix):
            raise ArtifactError(f"{path} is {what}")
    if contents[_TFLITE_AT : _TFLITE_AT + len(_TFLITE)] == _TFLITE:
        return "litert"
    if contents.startswith(_ONNX_FIELDS):
        return "onnxruntime"
    raise ArtifactError(f"{path} is neither an ONNX nor a TFLite model: it starts like neither")


def available_memory_bytes() -> int:
    """Memory that can be had without swapping; 0 where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def merged(path: Path, contents: bytes) -> bytes:
    """An ONNX file with the weights that it keeps in other files beside it.

    Raises:
        ArtifactError: it keeps some, and they are not there, or ``onnx`` is not installed.
    """
    if b"external" not in contents and b"location" not in contents:
        return contents
    if importlib.util.find_spec("onnx") is None:
        if _keeps_data_elsewhere(contents):
            raise ArtifactError(
                f"{path} keeps its weights in other files. Install `onnx` and import it again "
                "(pip install 'tierwise[import]'), which merges them, or merge them yourself: "
                "onnx.save(onnx.load('model.onnx'), 'merged.onnx')"
            )
        return contents
    import onnx  # noqa: PLC0415 - an extra

    try:
        model = onnx.load_from_string(contents)
        if not any(
            onnx.external_data_helper.uses_external_data(tensor)
            for tensor in model.graph.initializer
        ):
            return contents
        # Refuses locations outside the folder of the model.
        onnx.load_external_data_for_model(model, str(path.resolve().parent))
        for tensor in model.graph.initializer:
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        whole: bytes = model.SerializeToString(deterministic=True)
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise ArtifactError(
            f"{path} keeps its weights in other files, which cannot be merged: "
            f"{' '.join(str(error).split())[:200]}; copy them beside it"
        ) from error
    except onnx_decode_errors() as error:
        raise ArtifactError(f"{path} is damaged: {error}; export or download it again") from error
    return whole


def onnx_decode_errors() -> tuple[type[Exception], ...]:
    """What reading a damaged protobuf raises."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - comes with onnx

    return (DecodeError,)


def _keeps_data_elsewhere(contents: bytes) -> bool:
    """By the entries that external data must have: `location`, as a key."""
    return b"\x0a\x08location\x12" in contents


def file_name_of(path: Path, engine: Engine) -> str:
    """A name that a manifest may list, close to that of the file."""
    stem = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in path.stem)
    stem = stem.strip("-")[:100] or "model"
    return f"{stem}.{'onnx' if engine == 'onnxruntime' else 'tflite'}"
