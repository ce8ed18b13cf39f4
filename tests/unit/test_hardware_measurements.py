"""What a benchmark says of the machine it ran on, what it keeps, and what is read again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fakes.hosts import write
from hardware_profiles.energy import EnergyMeter
from hardware_profiles.judging import Judgement, judge
from hardware_profiles.measurement import (
    FORMAT,
    BatchTimes,
    Energy,
    Measurement,
    default_folder,
    read_all,
    save,
)
from hardware_profiles.reading import MAX_BYTES
from hardware_profiles.state import State
from runtime.errors import StorageError

TIMES = BatchTimes(1, 10, 1.0, 2.0, 3.0, 900.0, 1.0, 1.0, 5, True)
ONE = Measurement(
    model="tiny",
    version="1",
    model_sha256="a" * 64,
    engine="onnxruntime",
    engine_version="1.32.0",
    profile="raspberry-pi-4b",
    threads=1,
    host="a host",
    measured_at="2026-01-01T00:00:00+00:00",
    batches=(TIMES,),
    load_ms=10.0,
    base_rss_bytes=1,
    peak_rss_bytes=2,
    cpu_share=1.0,
    num_preempted=0,
    measured_s=1.0,
)


def judged(
    *states: State,
    batches: tuple[BatchTimes, ...] = (TIMES,),
    cpu_share: float = 1.0,
    num_preempted: int = 0,
    throttle_c: float | None = None,
) -> Judgement:
    return judge(
        states=states,
        batches=batches,
        cpu_share=cpu_share,
        num_preempted=num_preempted,
        measured_s=2.0,
        throttle_c=throttle_c,
    )


class TestJudging:
    def test_a_cool_and_idle_machine_is_not_worth_a_word(self) -> None:
        assert judged(State(), State(temperature_c=50.0), throttle_c=80.0) == (False, False, ())

    def test_a_model_that_has_to_wait_is_on_a_busy_machine(self) -> None:
        found = judged(cpu_share=0.6)

        assert found.is_contended
        assert found.notes == (
            "the machine was busy: the model had a processor in 60% of the time only",
        )

    def test_so_is_one_whose_processor_is_often_taken_away(self) -> None:
        found = judged(num_preempted=1000)

        assert found.is_contended
        assert "1000 times in 2.0 s" in found.notes[0]

    def test_flags_of_the_firmware_are_told(self) -> None:
        found = judged(State(throttled_now=("throttled",)), State(throttled_before=("x",)))

        assert found.is_throttled
        assert found.notes == ("the firmware held the processor back: throttled",)

    def test_a_clock_that_falls_is_told(self) -> None:
        found = judged(State(clock_mhz=600), State(clock_mhz=1500), State(clock_mhz=1000))

        assert found.is_throttled
        assert found.notes == ("the clock fell from 1500 to 1000 MHz",)

    def test_a_clock_that_rises_is_not(self) -> None:
        assert not judged(State(clock_mhz=600), State(clock_mhz=1500)).is_throttled

    @pytest.mark.parametrize(
        ("throttle_c", "expected"), [(80.0, True), (82.0, False), (None, False)]
    )
    def test_heat_counts_where_the_limit_is_known(
        self, throttle_c: float | None, *, expected: bool
    ) -> None:
        assert judged(State(temperature_c=81.0), throttle_c=throttle_c).is_throttled is expected

    def test_runs_that_become_slower_and_a_warm_up_without_an_end_are_told(self) -> None:
        slower = msgspec.structs.replace(TIMES, second_half_ms=1.2, is_warm=False)

        found = judged(batches=(TIMES, slower))
        assert found == (
            False,
            False,
            (
                "with batch 1, runs became slower: 1 ms in the first half, 1.2 ms in the second",
                "with batch 1, the warm-up did not become steady",
            ),
        )


class TestEnergy:
    def test_nothing_that_can_be_read_is_no_energy(self, tmp_path: Path) -> None:
        meter = EnergyMeter(tmp_path)
        meter.start(1.0)

        assert meter.stop(2.0) is None

    def rapl(self, root: Path, *numbers: object, limit: object = 100_000_000) -> Path:
        return write(
            root,
            {
                f"sys/class/powercap/intel-rapl:{position}/{name}": f"{value}\n"
                for position, number in enumerate(numbers)
                for name, value in (("energy_uj", number), ("max_energy_range_uj", limit))
            },
        )

    def test_rapl_counts_what_all_packages_used(self, tmp_path: Path) -> None:
        meter = EnergyMeter(self.rapl(tmp_path, 1_000_000, 5_000_000))
        meter.start(10.0)
        self.rapl(tmp_path, 3_000_000, 6_000_000)

        assert meter.stop(12.0) == Energy(3.0, 1.5, "RAPL, the processor", False)

    def test_a_counter_that_began_again_is_understood(self, tmp_path: Path) -> None:
        meter = EnergyMeter(self.rapl(tmp_path, 99_000_000))
        meter.start(0.0)
        self.rapl(tmp_path, 1_000_000)

        found = meter.stop(1.0)
        assert found is not None
        assert found.energy_j == pytest.approx(2.0)

    @pytest.mark.parametrize("after", ["", "garbage"])
    def test_a_counter_that_goes_away_is_no_energy(self, tmp_path: Path, after: str) -> None:
        meter = EnergyMeter(self.rapl(tmp_path, 1, 1))
        meter.start(0.0)
        write(tmp_path, {"sys/class/powercap/intel-rapl:1/energy_uj": after})

        assert meter.stop(1.0) is None

    def test_a_counter_that_falls_without_a_range_is_no_energy(self, tmp_path: Path) -> None:
        meter = EnergyMeter(self.rapl(tmp_path, 10, limit="x"))
        meter.start(0.0)
        self.rapl(tmp_path, 5, limit="x")

        assert meter.stop(1.0) is None

    def ina(self, root: Path, milliamperes: int) -> Path:
        return write(
            root,
            {
                "sys/class/hwmon/hwmon0/name": "thermal\n",
                "sys/class/hwmon/hwmon1/name": "ina3221\n",
                "sys/class/hwmon/hwmon1/in1_label": "VDD_CPU_GPU_CV\n",
                "sys/class/hwmon/hwmon1/in2_label": "VDD_IN\n",
                "sys/class/hwmon/hwmon1/in2_input": "5000\n",
                "sys/class/hwmon/hwmon1/curr2_input": f"{milliamperes}\n",
            },
        )

    def test_a_jetsons_sensor_is_read_while_it_runs(self, tmp_path: Path) -> None:
        meter = EnergyMeter(self.ina(tmp_path, 1000))
        meter.start(0.0)
        self.ina(tmp_path, 3000)
        meter.sample()

        assert meter.stop(2.0) == Energy(20.0, 10.0, "INA3221, the whole module", True)

    def test_no_time_is_no_energy(self, tmp_path: Path) -> None:
        meter = EnergyMeter(self.ina(tmp_path, 1000))
        meter.start(1.0)

        assert meter.stop(1.0) is None


class TestKeeping:
    def test_what_is_kept_is_read_again(self, tmp_path: Path) -> None:
        path = save(tmp_path / "new", ONE)

        assert path.name == f"{'a' * 16}-onnxruntime-1.32.0-raspberry-pi-4b-1t.json"
        assert read_all(tmp_path / "new") == ((ONE,), ())

    def test_a_new_run_replaces_the_one_before_and_no_other(self, tmp_path: Path) -> None:
        save(tmp_path, ONE)
        again = msgspec.structs.replace(ONE, load_ms=20.0)
        other = msgspec.structs.replace(ONE, threads=2)

        save(tmp_path, other)
        save(tmp_path, again)
        found, _ = read_all(tmp_path)
        assert set(found) == {again, other}

    def test_a_name_of_an_engine_version_is_no_path(self, tmp_path: Path) -> None:
        odd = msgspec.structs.replace(ONE, engine_version="../../1")

        assert save(tmp_path, odd).parent == tmp_path

    def test_a_folder_that_cannot_be_written_is_told_with_the_way_out(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")

        with pytest.raises(StorageError, match=r"could not be written: .*--out names another"):
            save(tmp_path / "file" / "hardware", ONE)

    @pytest.mark.parametrize(
        ("contents", "told"),
        [
            (b"", "it is no measurement: Input data was truncated"),
            (b"{", "it is no measurement: Input data was truncated"),
            (b"\xff\xfe", "it is no measurement"),
            (b'{"model": "x"}', "missing required field"),
            (b'{"x": ' + b"[" * 100_000, "maximum recursion depth"),
            (msgspec.json.encode(ONE).replace(b'"load_ms":10.0', b'"load_ms":-1'), ">= 0.0"),
            (msgspec.json.encode(ONE)[:-20], "it is no measurement"),
            (b" " * (MAX_BYTES + 1), f"it has more than {MAX_BYTES} bytes"),
            (
                msgspec.json.encode(msgspec.structs.replace(ONE, format=FORMAT + 1)),
                "it has format 2: update Tierwise",
            ),
        ],
    )
    def test_a_file_that_is_no_measurement_is_named_and_left_out(
        self, tmp_path: Path, contents: bytes, told: str
    ) -> None:
        save(tmp_path, ONE)
        (tmp_path / "bad.json").write_bytes(contents)

        found, complaints = read_all(tmp_path)
        assert found == (ONE,)
        assert [told in one and "bad.json was left out" in one for one in complaints] == [True]

    def test_what_is_no_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "folder.json").mkdir()

        assert read_all(tmp_path) == (
            (),
            (f"{tmp_path}/folder.json was left out: Is a directory",),
        )

    def test_a_folder_that_is_not_there_holds_nothing(self, tmp_path: Path) -> None:
        assert read_all(tmp_path / "none") == ((), ())

    def test_the_folder_is_the_one_of_the_user(self) -> None:
        assert default_folder({"XDG_DATA_HOME": "/data"}) == Path("/data/tierwise/hardware")
        usual = Path.home() / ".local/share/tierwise/hardware"
        assert default_folder({}) == usual
        assert default_folder({"XDG_DATA_HOME": "relative"}) == usual
