"""What is known of a variant on a device: measured if it was, else estimated where it can be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hardware_profiles.candidates import (
    BASE_BYTES,
    COPIES,
    best_measurement,
    from_entry,
    read_entry,
    speed_of,
)
from hardware_profiles.measurement import BatchTimes, Energy, Measurement
from hardware_profiles.registry import load_profiles
from hardware_profiles.work import count_events
from runtime.catalogue import CatalogueEntry, Requirements, Variant, encode_entry
from runtime.core.fitting import Need
from runtime.core.roofline import Latency, Speed
from runtime.errors import ArtifactError
from runtime.manifest import ModelFile
from runtime.messages import Tier

PROFILES = load_profiles()
DIGEST = "a" * 64
TIMES = BatchTimes(1, 10, 1.0, 2.0, 3.0, 900.0, 1.0, 1.0, 5, True)
ENTRY = CatalogueEntry(
    "m",
    3,
    Tier.EDGE,
    {
        "int8": Variant(
            {"manifest.json": ModelFile("b" * 64, 10), "m.onnx": ModelFile("c" * 64, 90)},
            Requirements(hardware=("aarch64",)),
            model_sha256=DIGEST,
        ),
        "odd": Variant(
            {"manifest.json": ModelFile("d" * 64, 10), "m.onnx": ModelFile("c" * 64, 90)}
        ),
    },
)


def measured(**changes: object) -> Measurement:
    fields: dict[str, object] = {
        "model": "m",
        "version": "3",
        "model_sha256": DIGEST,
        "engine": "onnxruntime",
        "engine_version": "1.32.0",
        "profile": "raspberry-pi-4b",
        "threads": 1,
        "host": "a host",
        "measured_at": "2026-01-01T00:00:00+00:00",
        "batches": (msgspec.structs.replace(TIMES, batch=8), TIMES),
        "load_ms": 10.0,
        "base_rss_bytes": 1,
        "peak_rss_bytes": 70_000_000,
        "cpu_share": 1.0,
        "num_preempted": 0,
        "measured_s": 1.0,
    }
    return Measurement(**(fields | changes))  # type: ignore[arg-type]


def test_speed_is_of_one_core() -> None:
    assert speed_of(PROFILES["raspberry-pi-4b"]) == Speed(11.97e9, 2.55e9, 1500)


def test_an_even_share_of_all_cores_stands_in_for_one() -> None:
    profile = PROFILES["raspberry-pi-4b"]
    figures = msgspec.structs.replace(profile.figures, core_flops=None)
    shared = msgspec.structs.replace(profile, figures=figures)

    assert speed_of(shared) == Speed(47.9e9 / 4, 2.55e9, 1500)


@pytest.mark.parametrize("name", ["generic-x86-64", "gateway", "jetson-agx-orin"])
def test_without_the_figures_there_is_no_speed(name: str) -> None:
    assert speed_of(PROFILES[name]) is None


def test_what_was_measured_on_such_a_device_counts() -> None:
    found, other = from_entry(ENTRY, PROFILES["raspberry-pi-4b"], [measured()])

    assert found.latency == Latency(1.0, 3.0, is_measured=True)
    assert found.memory == Need(70_000_000, is_measured=True)
    assert found.requirements.hardware == ("aarch64",)
    assert (other.latency, other.memory) == (None, Need(BASE_BYTES + COPIES * 100))


def test_what_was_measured_elsewhere_does_not() -> None:
    found, _ = from_entry(ENTRY, PROFILES["raspberry-pi-5"], [measured()])

    assert (found.latency, found.memory.is_measured) == (None, False)


def test_only_the_power_of_the_whole_device_is_its_power() -> None:
    whole = measured(energy=Energy(10.0, 5.0, "INA3221", True))
    part = measured(energy=Energy(10.0, 5.0, "RAPL", False))

    assert from_entry(ENTRY, PROFILES["raspberry-pi-4b"], [whole])[0].power_w == 5.0
    assert from_entry(ENTRY, PROFILES["raspberry-pi-4b"], [part])[0].power_w is None


def test_larger_batches_say_nothing_of_one_example() -> None:
    only_8 = measured(batches=(msgspec.structs.replace(TIMES, batch=8),), peak_rss_bytes=0)

    found, _ = from_entry(ENTRY, PROFILES["raspberry-pi-4b"], [only_8])
    assert (found.latency, found.memory.is_measured) == (None, False)


def test_one_thread_then_the_installed_engine_then_the_newest_then_the_latest() -> None:
    threads = measured(threads=2)
    old = measured(engine_version="1.9.0")
    new = measured(engine_version="1.20.0")
    later = measured(engine_version="1.20.0", measured_at="2026-02-01T00:00:00+00:00")
    every = [threads, old, new, later]

    def best(*found: Measurement, **engines: str) -> Measurement | None:
        return best_measurement(DIGEST, "raspberry-pi-4b", found, engines)

    assert best(threads) == threads
    assert best(*every) == later
    assert best(*reversed(every)) == later
    assert best(*every, onnxruntime="1.9.0") == old
    assert best() is None


def test_an_entry_is_read_from_a_file_of_any_name(tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    path.write_bytes(encode_entry(ENTRY))

    assert read_entry(path) == ENTRY


@pytest.mark.parametrize(
    "contents", [b"", b"{}", b"\xff", encode_entry(ENTRY)[:-9], b'{"x": ' + b"[" * 50_000]
)
def test_a_file_that_is_no_entry_is_named(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "entry.json"
    path.write_bytes(contents)

    with pytest.raises(ArtifactError, match=r"entry\.json is no entry"):
        read_entry(path)
    with pytest.raises(ArtifactError, match="cannot be read: No such file"):
        read_entry(tmp_path / "none.json")


def event(op: str, inputs: list[list[int]], output: list[int], kind: str = "float") -> object:
    return {
        "cat": "Node",
        "name": f"{op}_kernel_time",
        "args": {
            "op_name": op,
            "input_type_shape": [{kind: shape} for shape in inputs],
            "output_type_shape": [{kind: output}],
        },
    }


@pytest.mark.parametrize(
    ("one", "flops", "int8"),
    [
        (event("Conv", [[1, 3, 8, 8], [4, 3, 3, 3]], [1, 4, 6, 6]), 2 * 144 * 27, 0),
        (event("Gemm", [[1, 5], [5, 7]], [1, 7]), 2 * 35, 0),
        (event("MatMul", [[2, 5], [5, 7]], [2, 7]), 2 * 70, 0),
        (
            event("QLinearConv", [[1, 8, 8, 3], [], [], [4, 3, 3, 3]], [1, 6, 6, 4], "uint8"),
            0,
            2 * 144 * 27,
        ),
        (event("MatMulInteger", [[1, 5], [5, 7]], [1, 7]), 0, 2 * 35),
        (event("Relu", [[1, 5]], [1, 5]), 0, 0),
        (event("Conv", [[1, 3, 8, 8], []], [1, 4, 6, 6]), 0, 0),
        (event("Conv", [[1, 3, 8, 8]], [1, 4, 6, 6]), 0, 0),
        (event("Gemm", [[1, 5], [5, 0]], [1, 0]), 0, 0),
    ],
)
def test_operations_are_counted_from_shapes(one: object, flops: float, int8: float) -> None:
    assert count_events([one, {"cat": "Session", "name": "x"}]) == (flops, int8, 1)  # type: ignore[list-item]


def test_an_operator_that_is_described_in_another_way_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        count_events([{"cat": "Node", "name": "x_kernel_time", "args": 5}])
