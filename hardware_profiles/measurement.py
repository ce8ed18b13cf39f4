"""What a benchmark found, and where such findings are kept.

Rules of this file:
  * one file for each model, engine version, profile and number of threads; a new run replaces it;
  * a file is there as a whole or not at all; one that cannot be read is named and left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from hardware_profiles.reading import MAX_BYTES, paths_in
from hardware_profiles.state import State
from runtime.adapters.artifacts import write_artifact
from runtime.catalogue import Tag
from runtime.errors import ArtifactError, StorageError
from runtime.manifest import Digest

FORMAT = 1
_NAME_DIGITS = 16
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._+-]")

Amount = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class BatchTimes(msgspec.Struct, frozen=True):
    """Runs with ``batch`` examples each; halves are medians of the run's first and second half."""

    batch: Annotated[int, msgspec.Meta(ge=1)]
    num_runs: Annotated[int, msgspec.Meta(ge=1)]
    p50_ms: Amount
    p90_ms: Amount
    p99_ms: Amount
    examples_per_s: Amount
    first_half_ms: Amount
    second_half_ms: Amount
    num_warm_up: Count
    is_warm: bool


class Energy(msgspec.Struct, frozen=True):
    """Energy in J and mean power in W while it ran; ``source`` says of what."""

    energy_j: Amount
    power_w: Amount
    source: str
    is_whole_device: bool


class Measurement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One benchmark of a model on a host.

    ``load_ms`` is from an empty process to a warm model, the import of the engine included.
    ``base_rss_bytes`` is resident before the engine is loaded, ``peak_rss_bytes`` at most.
    ``cpu_share`` is the processor time per time of the runs; ``num_preempted`` counts how often
    another program took the processor away. ``before`` is the host's state at the first run.
    """

    model: str
    version: str
    model_sha256: Digest
    engine: Tag
    engine_version: str
    profile: Tag
    threads: Annotated[int, msgspec.Meta(ge=1)]
    host: str
    measured_at: str
    batches: Annotated[tuple[BatchTimes, ...], msgspec.Meta(min_length=1)]
    load_ms: Amount
    base_rss_bytes: Count
    peak_rss_bytes: Count
    cpu_share: Amount
    num_preempted: Count
    measured_s: Amount
    before: State = State()
    after: State = State()
    energy: Energy | None = None
    is_contended: bool = False
    is_throttled: bool = False
    notes: tuple[str, ...] = ()
    format: Count = FORMAT

    @property
    def file_name(self) -> str:
        """Where it is kept: of what it is about, so that the next run replaces it."""
        parts = (
            self.model_sha256[:_NAME_DIGITS],
            self.engine,
            self.engine_version,
            self.profile,
            f"{self.threads}t",
        )
        return f"{_NOT_IN_NAMES.sub('_', '-'.join(parts))}.json"


_DECODER = msgspec.json.Decoder(Measurement)


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_DATA_HOME/tierwise/hardware``, below ``~/.local/share`` where that is not set."""
    given = environment.get("XDG_DATA_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".local/share"
    return base / "tierwise" / "hardware"


def save(folder: Path, measurement: Measurement) -> Path:
    """Keeps a measurement; returns its file.

    Raises:
        StorageError: it could not be written; the one before stays.
    """
    path = folder / measurement.file_name
    contents = msgspec.json.format(msgspec.json.encode(measurement), indent=2) + b"\n"
    try:
        write_artifact(path, contents)
    except ArtifactError as error:
        raise StorageError(f"{error}; --out names another folder") from error
    return path


def read_all(folder: Path) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """All measurements of a folder, and what is to be told about files that are none."""
    found: list[Measurement] = []
    complaints: list[str] = []
    for path in paths_in(folder, "*.json"):
        try:
            with path.open("rb") as file:
                contents = file.read(MAX_BYTES + 1)
            if len(contents) > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")  # noqa: TRY301
            one = _DECODER.decode(contents)
            if one.format > FORMAT:
                raise ValueError(f"it has format {one.format}: update Tierwise")  # noqa: TRY301
        except OSError as error:
            complaints.append(f"{path} was left out: {error.strerror}")
        except (ValueError, RecursionError) as error:
            complaints.append(f"{path} was left out, it is no measurement: {error}")
        else:
            found.append(one)
    return tuple(found), tuple(complaints)
