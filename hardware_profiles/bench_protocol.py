"""What the benchmark and its process say to one another: a line of JSON each."""

from __future__ import annotations

import msgspec

from hardware_profiles.measurement import BatchTimes


class Task(msgspec.Struct, frozen=True):
    """What to time: a verified model folder, ``seconds`` for each batch size."""

    folder: str
    threads: int
    batches: tuple[int, ...]
    seconds: float


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far it is; ``is_measuring`` is false while it loads and warms up."""

    share: float
    is_measuring: bool


class Timed(msgspec.Struct, frozen=True, tag="timed"):
    """All figures; times of processor and clock are of the runs that were timed."""

    batches: tuple[BatchTimes, ...]
    load_ms: float
    base_rss_bytes: int
    peak_rss_bytes: int
    cpu_s: float
    measured_s: float
    num_preempted: int
    engine: str
    engine_version: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Why there are no figures; ``code`` is that of the error."""

    code: str
    text: str


Said = Progress | Timed | Failed
