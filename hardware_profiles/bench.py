"""Times the files of a model on this host, in a process of their own, and watches the host."""

from __future__ import annotations

import importlib.util
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from hardware_profiles.bench_protocol import Failed, Said, Task, Timed
from hardware_profiles.energy import EnergyMeter
from hardware_profiles.judging import judge
from hardware_profiles.matching import Matched
from hardware_profiles.measurement import Energy, Measurement
from hardware_profiles.state import State, read_state
from runtime.adapters.artifacts import open_model
from runtime.errors import ArtifactError, BackendError, StartError
from runtime.manifest import Engine, ModelManifest, model_digest

# What runs a kind of engine (``Member.engine``): names to import, any of which will do, and what
# installs the first.
ENGINES: dict[Engine, tuple[tuple[str, ...], str]] = {
    "onnxruntime": (("onnxruntime",), "pip install onnxruntime"),
    "litert": (("ai_edge_litert", "tflite_runtime"), "pip install 'tierwise[tflite]'"),
}
_SILENCE_S = 120.0
_END_S = 10.0
_READ_BYTES = 1 << 16
_MODULE = "hardware_profiles.bench_worker"
_TAIL = 500

_DECODER: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)

Show = Callable[[float], None]


def check_engines(manifest: ModelManifest) -> None:
    """Refuses a model that nothing here can run.

    Raises:
        StartError: an engine is not installed, or a server runs a member.
    """
    for member in manifest.members:
        if member.engine not in ENGINES:
            raise StartError(
                f"member {member.name} is answered by {member.url}: how long that takes is "
                "measured there, and on the way"
            )
        modules, remedy = ENGINES[member.engine]
        if not any(importlib.util.find_spec(module) for module in modules):
            raise StartError(
                f"the engine {member.engine}, which runs {member.file}, is not installed: {remedy}"
            )


def bench(
    folder: Path,
    matched: Matched,
    *,
    threads: int = 1,
    batches: tuple[int, ...] = (1, 8),
    seconds: float = 2.0,
    show: Show = lambda _share: None,
    root: Path = Path("/"),
) -> Measurement:
    """Times a model folder; members of an ensemble run one after the other.

    Args:
        folder: with manifest.json.
        matched: this host.
        threads: of one inference.
        batches: sizes to time; only 1 is where the model's first axis is fixed.
        seconds: for each of them.
        show: takes what is done, from 0 to 1.
        root: where ``sys`` of the host is.

    Raises:
        ArtifactError: the folder is damaged, or a file is not what the manifest says.
        BackendError: the model failed, or its process did.
        StartError: its engine is not installed, or the process could not be started.
    """
    model = open_model(folder)
    manifest = model.manifest
    check_engines(manifest)
    if any(spec.shape[:1] != (-1,) for spec in manifest.inputs):
        batches = (1,)
    task = Task(str(folder.resolve()), threads, batches, seconds)
    states: list[State] = []
    meter = EnergyMeter(root)
    timed: Timed | None = None
    energy: Energy | None = None
    with _started(task) as said:
        for one in said:
            if isinstance(one, Failed):
                kind = ArtifactError if one.code == ArtifactError.code else BackendError
                raise kind(one.text)
            if isinstance(one, Timed):
                timed, energy = one, meter.stop(time.monotonic())
                continue
            show(one.share)
            # Only while it works: afterwards a clock falls because there is nothing to do.
            if one.is_measuring:
                if not states:
                    meter.start(time.monotonic())
                states.append(read_state(root))
                meter.sample()
    if timed is None:
        raise BackendError(f"the process that timed {folder} ended without a result")
    cpu_share = timed.cpu_s / timed.measured_s
    found = judge(
        states=states,
        batches=timed.batches,
        cpu_share=cpu_share,
        num_preempted=timed.num_preempted,
        measured_s=timed.measured_s,
        throttle_c=matched.profile.value("throttle_c"),
    )
    return Measurement(
        model=manifest.name,
        version=manifest.version,
        model_sha256=model_digest(manifest),
        engine=timed.engine,
        engine_version=timed.engine_version,
        profile=matched.profile.name,
        threads=threads,
        host=str(matched.host),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        batches=timed.batches,
        load_ms=timed.load_ms,
        base_rss_bytes=timed.base_rss_bytes,
        peak_rss_bytes=timed.peak_rss_bytes,
        cpu_share=cpu_share,
        num_preempted=timed.num_preempted,
        measured_s=timed.measured_s,
        before=states[0] if states else State(),
        after=states[-1] if states else State(),
        energy=energy,
        is_contended=found.is_contended,
        is_throttled=found.is_throttled,
        notes=found.notes,
    )


@contextmanager
def _started(task: Task) -> Iterator[Iterator[Said]]:
    """The lines of a process that works on the task; it has ended afterwards."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}
    environment["PYTHONPATH"] = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            raise StartError(f"no process to time the model in: {error}") from error
        with _ended(process):
            yield _lines(process, errors, task)


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    with process:
        try:
            yield
        finally:
            if process.poll() is None:
                try:
                    process.wait(_END_S if sys.exc_info()[0] is None else 0)
                except subprocess.TimeoutExpired:
                    process.kill()


def _lines(process: subprocess.Popen[bytes], errors: BinaryIO, task: Task) -> Iterator[Said]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("pipes were asked for")
    try:
        process.stdin.write(msgspec.json.encode(task))
        process.stdin.close()
    except BrokenPipeError as error:
        raise BackendError(f"the process that times models ended: {_tail(errors)}") from error
    rest = b""
    while chunk := _read(process.stdout):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            try:
                yield _DECODER.decode(line)
            except msgspec.DecodeError as error:
                raise BackendError(f"the process that times models said {line[:80]!r}") from error
    if process.wait(_END_S) < 0:
        raise BackendError(
            f"the process that timed the model was ended by signal {-process.returncode}: "
            "not enough memory, perhaps"
        )
    # What it can say itself, it has said; that ends the reading before this.
    if process.returncode:
        raise BackendError(f"the process that times models failed: {_tail(errors)}")


def _read(stream: IO[bytes]) -> bytes:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if not selector.select(_SILENCE_S):
            raise BackendError(
                f"the model gave no sign for {_SILENCE_S:g} s; its process was ended"
            )
    return os.read(stream.fileno(), _READ_BYTES)


def _tail(errors: BinaryIO) -> str:
    """The last line of what the process wrote on its standard error."""
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _TAIL))
    said = errors.read().decode(errors="replace").strip()
    return said.splitlines()[-1] if said else "it said nothing"
