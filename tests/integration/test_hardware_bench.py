"""Benchmarks of real files with ONNX Runtime, in a process of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fakes.hosts import write
from fakes.models import linear_model, manifest_of, model_folder
from hardware_profiles import bench as bench_module
from hardware_profiles.bench import bench, check_engines
from hardware_profiles.bench_worker import example
from hardware_profiles.candidates import from_folder
from hardware_profiles.detect import Host
from hardware_profiles.matching import match_host
from hardware_profiles.measurement import Measurement, read_all, save
from hardware_profiles.registry import load_profiles
from hardware_profiles.work import count_work
from model_zoo.catalog import bundled_model
from runtime.adapters.artifacts import open_model, write_model
from runtime.errors import ArtifactError, BackendError, StartError
from runtime.manifest import Member, model_digest
from runtime.messages import TensorSpec

HERE = match_host(Host("x86_64", "Test CPU", "", 2, 0))
SECONDS = 0.05


def timed(folder: Path, **options: object) -> Measurement:
    return bench(folder, HERE, seconds=SECONDS, **options)  # type: ignore[arg-type]


def test_the_bundled_model_of_devices_is_timed(tmp_path: Path) -> None:
    folder = bundled_model("edge")
    shares: list[float] = []

    found = timed(folder, threads=2, show=shares.append)

    assert (found.model, found.engine, found.threads) == ("fashion", "onnxruntime", 2)
    assert found.model_sha256 == model_digest(open_model(folder).manifest)
    assert [one.batch for one in found.batches] == [1, 8]
    for one in found.batches:
        assert 0 < one.p50_ms <= one.p90_ms <= one.p99_ms
        assert one.num_runs >= 2
        assert one.examples_per_s > 0
    assert 0 < found.base_rss_bytes < found.peak_rss_bytes
    assert found.cpu_share > 0
    assert shares == sorted(shares)
    save(tmp_path, found)
    assert read_all(tmp_path) == ((found,), ())


def test_the_host_is_watched_while_it_runs(tmp_path: Path) -> None:
    root = write(
        tmp_path / "root",
        {
            "sys/class/thermal/thermal_zone0/temp": "81000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "4\n",
            "sys/class/hwmon/hwmon0/name": "ina3221\n",
            "sys/class/hwmon/hwmon0/in1_label": "VDD_IN\n",
            "sys/class/hwmon/hwmon0/in1_input": "5000\n",
            "sys/class/hwmon/hwmon0/curr1_input": "1000\n",
        },
    )
    board_here = match_host(Host("aarch64", "", "Raspberry Pi 4 Model B", 4, 2**30))

    found = bench(
        model_folder(tmp_path / "m").folder, board_here, seconds=SECONDS, batches=(1,), root=root
    )

    assert found.profile == "raspberry-pi-4b"
    assert found.is_throttled
    assert found.before.clock_mhz == found.after.clock_mhz == 1500
    assert "the firmware held the processor back: throttled" in found.notes
    assert "it was 81 degrees C hot; from 80 on clocks are lowered" in found.notes
    assert found.energy is not None
    assert found.energy.power_w == 5.0


def test_a_measurement_beats_an_estimate() -> None:
    profile = load_profiles()["raspberry-pi-4b"]
    folder = bundled_model("edge")

    estimated = from_folder("edge", folder, profile)
    here = from_folder("edge", folder, HERE.profile, [timed(folder)])

    assert estimated.latency is not None
    assert not estimated.latency.is_measured
    assert 0 < estimated.latency.low_ms < estimated.latency.high_ms
    assert here.latency is not None
    assert here.latency.is_measured
    assert here.memory.is_measured
    assert here.accuracy == estimated.accuracy == 0.9215


def test_without_figures_of_a_device_latency_is_not_known() -> None:
    found = from_folder("edge", bundled_model("edge"), load_profiles()["gateway"])

    assert found.latency is None


def test_members_of_an_ensemble_run_one_after_the_other(tmp_path: Path) -> None:
    one = timed(model_folder(tmp_path / "1").folder, batches=(1,))
    files = {"a.onnx": linear_model(), "b.onnx": linear_model(2 * np.eye(3, 2, dtype=np.float32))}
    two = timed(model_folder(tmp_path / "2", files).folder, batches=(1,))

    assert len(one.batches) == len(two.batches) == 1
    assert two.model_sha256 != one.model_sha256


def test_work_is_that_of_all_members(tmp_path: Path) -> None:
    files = {"a.onnx": linear_model(), "b.onnx": linear_model(2 * np.eye(3, 2, dtype=np.float32))}

    one = count_work(model_folder(tmp_path / "1"))
    two = count_work(model_folder(tmp_path / "2", files))

    assert (one.num_flops, one.num_int8_ops) == (2 * 3 * 2, 0)
    assert (two.num_flops, two.num_ops) == (2 * one.num_flops, 2 * one.num_ops)


def test_work_of_a_quantized_model_is_of_bytes() -> None:
    work = count_work(open_model(bundled_model("edge")))

    assert work.num_int8_ops > 1e6
    assert work.num_bytes == 45_522


def test_a_model_with_a_fixed_batch_is_timed_with_it(tmp_path: Path) -> None:
    contents = {"tiny.onnx": linear_model(batch=1)}
    manifest = manifest_of(
        contents,
        inputs=(TensorSpec("x", "FP32", (1, 3)),),
        outputs=(TensorSpec("logits", "FP32", (1, 2)),),
    )
    write_model(tmp_path / "fixed", manifest, contents)

    assert [one.batch for one in timed(tmp_path / "fixed", batches=(1, 8)).batches] == [1]


def test_examples_are_the_same_every_time_and_of_the_datatype() -> None:
    specs = (
        TensorSpec("a", "FP16", (-1, 4)),
        TensorSpec("b", "INT64", (-1, -1)),
        TensorSpec("c", "BOOL", (2,)),
    )

    one, two = example(specs, 3), example(specs, 3)
    assert {name: (str(v.dtype), v.shape) for name, v in one.items()} == {
        "a": ("float16", (3, 4)),
        "b": ("int64", (3, 1)),
        "c": ("bool", (2,)),
    }
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_truncated_file_is_named_before_anything_runs(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "m")
    path = model.folder / "tiny.onnx"
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(ArtifactError, match=r"tiny\.onnx is truncated"):
        timed(model.folder)
    with pytest.raises(ArtifactError, match=r"tiny\.onnx is truncated"):
        from_folder("m", model.folder, HERE.profile)


def test_a_file_that_is_no_model_is_told_by_the_process(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "m", {"tiny.onnx": b"no model at all"})

    with pytest.raises(ArtifactError, match="not a model that ONNX Runtime can run"):
        timed(model.folder)
    with pytest.raises(ArtifactError, match="not a model that ONNX Runtime can run"):
        count_work(model)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not a folder"):
        timed(tmp_path / "none")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("m.engine", "m.engine"),
        ("m.bin", "m.bin"),
    ],
)
def test_a_file_without_an_engine_is_told(tmp_path: Path, file: str, told: str) -> None:
    model = model_folder(tmp_path / "m", {file: b"anything"})

    with pytest.raises(ArtifactError, match=f"nothing here runs '{told}'"):
        check_engines(model.manifest)


def test_an_engine_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_folder(tmp_path / "m", {"m.tflite": b"anything"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(StartError, match="is not installed: pip install"):
        check_engines(model.manifest)


def test_a_server_is_not_timed_here() -> None:
    member = Member("far", url="http://127.0.0.1:1", model="m")
    manifest = manifest_of({}, members=(member,))

    with pytest.raises(StartError, match="measured there"):
        check_engines(manifest)


def test_a_tensorflow_lite_file_is_timed_by_its_engine() -> None:
    measured = timed(bundled_model("edge").with_name("edge-tflite"))

    assert measured.engine in ("ai-edge-litert", "tflite-runtime")
    assert measured.engine_version[0].isdigit()
    assert measured.batches[0].p50_ms > 0


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("killed", "was ended by signal 9: not enough memory, perhaps"),
        ("garbage", "said b'no JSON'"),
        ("raises", "failed: RuntimeError: no figures today"),
        ("exits", "failed: it said nothing"),
        ("ends", "ended without a result"),
    ],
)
def test_a_process_that_does_not_do_its_work_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, told: str
) -> None:
    monkeypatch.setattr(bench_module, "_MODULE", "fakes.rogue_bench_worker")
    contents = {"tiny.onnx": linear_model()}
    write_model(tmp_path / "m", manifest_of(contents, version=what), contents)

    with pytest.raises(BackendError, match=told):
        timed(tmp_path / "m")


def test_a_process_that_says_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "_MODULE", "fakes.rogue_bench_worker")
    monkeypatch.setattr(bench_module, "_SILENCE_S", 0.2)
    contents = {"tiny.onnx": linear_model()}
    write_model(tmp_path / "m", manifest_of(contents, version="silent"), contents)

    with pytest.raises(BackendError, match=r"gave no sign for 0\.2 s; its process was ended"):
        timed(tmp_path / "m")
