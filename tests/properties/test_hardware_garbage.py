"""Whatever the kernel's files, a profile or a measurement hold: an answer, or a named refusal."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware_profiles.detect import detect
from hardware_profiles.energy import EnergyMeter
from hardware_profiles.matching import match_host
from hardware_profiles.measurement import read_all
from hardware_profiles.profile import decode_profile
from hardware_profiles.registry import FOLDER
from hardware_profiles.state import read_state
from runtime.errors import SettingsError

FILES = (
    "proc/cpuinfo",
    "proc/meminfo",
    "proc/self/cgroup",
    "proc/sys/kernel/arch",
    "proc/device-tree/model",
    "proc/driver/nvidia/gpus/0/information",
    "etc/nv_tegra_release",
    "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/cpu.max",
    "sys/bus/usb/devices/1-1/idVendor",
    "sys/bus/usb/devices/1-1/idProduct",
    "sys/class/thermal/thermal_zone0/temp",
    "sys/class/powercap/intel-rapl:0/energy_uj",
    "sys/class/hwmon/hwmon0/name",
    "sys/class/hwmon/hwmon0/in1_label",
    "sys/class/hwmon/hwmon0/in1_input",
    "sys/class/hwmon/hwmon0/curr1_input",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
    "sys/devices/platform/soc/soc:firmware/get_throttled",
)
# Words that lead further in, between bytes that lead nowhere.
WORDS = (
    b"MemTotal: ", b" kB", b"0::/", b"a/../..", b"max ", b"100000 ", b"-1", b"Features: asimd\n",
    b"processor: 0\n", b"Model: ", b"ina3221", b"VDD_IN", b"\0", b"\n", b"9" * 25, b"0x5",
)  # fmt: skip
texts = st.lists(st.sampled_from(WORDS) | st.binary(max_size=8), max_size=8).map(b"".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FILES), texts))
def test_a_host_has_a_profile_whatever_its_files_hold(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, contents in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(contents)

        found = match_host(detect(root))
        state = read_state(root)
        meter = EnergyMeter(root)
        meter.start(0.0)
        energy = meter.stop(1.0)

    assert found.profile.name
    assert found.memory_bytes >= 0
    assert 0 < found.host.usable_cores <= found.host.num_cores
    assert state.clock_mhz is None or state.clock_mhz > 0
    assert energy is None or energy.power_w == energy.energy_j >= 0


GOOD = (FOLDER / "raspberry-pi-5.toml").read_bytes()


@given(st.binary(max_size=40), st.integers(0, len(GOOD)), st.integers(0, 40))
def test_a_damaged_profile_is_a_profile_or_refused(put: bytes, at: int, drop: int) -> None:
    told = ""
    try:
        decode_profile(GOOD[:at] + put + GOOD[at + drop :], "damaged.toml")
    except SettingsError as error:
        told = str(error)

    assert told.startswith("damaged.toml ") or not told


@given(st.binary(max_size=200))
def test_a_file_that_is_no_measurement_is_left_out_and_named(contents: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.json").write_bytes(contents)

        found, complaints = read_all(Path(folder))

    assert found == ()
    assert len(complaints) == 1
