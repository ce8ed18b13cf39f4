"""Which profile a host is found to be, from the files of its kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.hosts import A53, A57, A76, board, write, x86
from hardware_profiles.detect import detect
from hardware_profiles.matching import Matched, match_host
from hardware_profiles.state import State, read_state

MIB = 1024**2


def matched(root: Path) -> Matched:
    return match_host(detect(root))


@pytest.mark.parametrize(
    ("model", "features", "profile", "tags"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", A53, "raspberry-pi-zero-2w", {"neon", "aarch64"}),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", A53, "raspberry-pi-3b-plus", {"neon"}),
        ("Raspberry Pi 4 Model B Rev 1.4", A53, "raspberry-pi-4b", {"neon", "raspberry-pi"}),
        ("Raspberry Pi 5 Model B Rev 1.0", A76, "raspberry-pi-5", {"neon", "dotprod"}),
        ("NVIDIA Jetson Nano Developer Kit", A57, "jetson-nano", {"cuda", "jetson"}),
        ("NVIDIA Jetson Orin Nano Developer Kit Super", A76, "jetson-orin-nano", {"dotprod"}),
        ("NVIDIA Jetson AGX Orin Developer Kit", A76, "jetson-agx-orin", {"cuda"}),
        ("Freescale i.MX8MQ Phanbell", A53, "coral-dev-board", {"edgetpu"}),
    ],
)
def test_a_board_is_known_by_its_device_tree(
    tmp_path: Path, model: str, features: str, profile: str, tags: set[str]
) -> None:
    found = matched(board(tmp_path, model, features=features))

    assert (found.profile.name, found.is_exact) == (profile, True)
    assert tags | {profile, "aarch64"} <= found.tags
    assert found.host.num_cores == 4


def test_a_board_with_a_32_bit_kernel_is_the_same_board_of_another_machine(tmp_path: Path) -> None:
    root = board(tmp_path, "Raspberry Pi 4 Model B Rev 1.1")
    write(root, {"proc/sys/kernel/arch": "armv7l"})

    found = matched(root)
    assert found.profile.name == "raspberry-pi-4b"
    assert "armv7l" in found.tags
    assert "aarch64" not in found.tags


def test_linux_for_tegra_tells_its_release(tmp_path: Path) -> None:
    line = "# R32 (release), REVISION: 7.4, GCID: 33514132, BOARD: t210ref, EABI: aarch64"
    root = write(
        board(tmp_path, "NVIDIA Jetson Nano Developer Kit"),
        {"etc/nv_tegra_release": f"{line}\nmore\n"},
    )

    assert detect(root).l4t == line


def test_a_jetson_without_a_profile_is_still_one(tmp_path: Path) -> None:
    root = board(tmp_path, "NVIDIA Jetson Orin NX Engineering Reference Developer Kit")
    write(root, {"etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, BOARD: generic\n"})

    found = matched(root)
    assert found.profile.name == "generic-aarch64"
    assert {"jetson", "cuda"} <= found.tags


def test_any_nvidia_gpu_means_cuda(tmp_path: Path) -> None:
    root = x86(tmp_path, "Intel(R) Xeon(R) CPU")
    write(root, {"proc/driver/nvidia/gpus/0/information": "Model: NVIDIA A10\n"})

    assert "cuda" in matched(root).tags


def test_a_mini_pc_is_known_by_its_processor(tmp_path: Path) -> None:
    found = matched(x86(tmp_path, "Intel(R) N100"))

    assert found.profile.name == "intel-n100"
    assert {"avx2", "vnni", "x86_64"} <= found.tags
    assert found.memory_bytes == 16_157_344 * 1024


def test_a_server_is_known_by_its_gpu(tmp_path: Path) -> None:
    root = write(
        x86(tmp_path, "Intel(R) Xeon(R) CPU @ 2.20GHz"),
        {"proc/driver/nvidia/gpus/0000:00:04.0/information": "Model: \t\t Tesla T4\nIRQ:   33\n"},
    )

    found = matched(root)
    assert found.profile.name == "cloud-t4"
    assert found.host.nvidia == ("Tesla T4",)


@pytest.mark.parametrize("usb", ["1a6e:089a", "18d1:9302"])
def test_an_accelerator_is_beside_whatever_host_it_is_plugged_into(
    tmp_path: Path, usb: str
) -> None:
    vendor, _, product = usb.partition(":")
    root = write(
        board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4"),
        {
            "sys/bus/usb/devices/2-1/idVendor": f"{vendor}\n",
            "sys/bus/usb/devices/2-1/idProduct": f"{product}\n",
            "sys/bus/usb/devices/1-0/idVendor": "1d6b\n",
        },
    )

    found = matched(root)
    assert [one.name for one in found.accelerators] == ["coral-usb"]
    assert {"edgetpu", "raspberry-pi-4b"} <= found.tags
    assert "with Coral USB Accelerator" in str(found)


def test_an_unknown_host_gets_the_profile_of_its_machine_and_is_told(tmp_path: Path) -> None:
    found = matched(board(tmp_path, "Radxa ROCK 5B", features=A76))

    assert (found.profile.name, found.is_exact) == ("generic-aarch64", False)
    assert "dotprod" in found.tags
    assert found.notes[0].startswith("no profile matches Radxa ROCK 5B (aarch64, 4 cores")


def test_a_machine_that_nobody_knows_is_unknown(tmp_path: Path) -> None:
    found = matched(write(tmp_path, {"proc/sys/kernel/arch": "riscv64"}))

    assert found.profile.name == "unknown"
    assert found.tags >= {"unknown", "riscv64"}
    assert found.memory_bytes == 0


def test_nothing_readable_is_generic_with_nothing_known(tmp_path: Path) -> None:
    found = matched(tmp_path)

    assert found.profile.kind == "generic"
    assert (found.host.features, found.host.usb, found.memory_bytes) == ((), (), 0)
    assert read_state(tmp_path) == State()


def test_garbage_in_files_is_as_good_as_nothing(tmp_path: Path) -> None:
    junk = "\x00\x01not a number: 99999999999999999999999999999\n"
    root = write(
        tmp_path,
        {
            "proc/sys/kernel/arch": "x86_64",
            **dict.fromkeys(
                (
                    "proc/cpuinfo",
                    "proc/meminfo",
                    "proc/device-tree/model",
                    "proc/self/cgroup",
                    "sys/fs/cgroup/memory.max",
                    "sys/fs/cgroup/cpu.max",
                    "sys/bus/usb/devices/1-1/idVendor",
                    "sys/class/thermal/thermal_zone0/temp",
                    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
                    "sys/devices/platform/soc/soc:firmware/get_throttled",
                ),
                junk,
            ),
        },
    )
    (root / "proc/cpuinfo").write_bytes(b"\xff\xfe\x00 : \xff")

    found = matched(root)
    assert found.profile.name == "generic-x86-64"
    assert (found.memory_bytes, found.host.limits.cores) == (0, None)
    state = read_state(root)
    assert (state.temperature_c, state.clock_mhz, state.throttled_now) == (None, None, ())


@pytest.mark.parametrize("text", ["MemTotal: -5 kB", "MemTotal: lots", "MemTotal:", "Mem"])
def test_memory_that_is_no_amount_is_not_told(tmp_path: Path, text: str) -> None:
    assert detect(write(tmp_path, {"proc/meminfo": text})).memory_bytes == 0


def container(root: Path, memory: str, cpu: str, *, group: str = "/") -> Path:
    return write(
        x86(root, "Intel(R) Xeon(R)", cores=8),
        {
            "proc/self/cgroup": f"0::{group}\n",
            f"sys/fs/cgroup{group}/memory.max": memory,
            f"sys/fs/cgroup{group}/cpu.max": cpu,
        },
    )


def test_the_limits_of_a_container_count(tmp_path: Path) -> None:
    found = matched(container(tmp_path, f"{512 * MIB}\n", "150000 100000\n"))

    assert found.memory_bytes == 512 * MIB
    assert found.host.usable_cores == 1.5
    assert "this container may use 0.50 GiB of memory" in found.notes
    assert "this container may use 1.5 of 8 cores" in found.notes


def test_a_limit_above_counts_for_the_groups_below(tmp_path: Path) -> None:
    root = container(tmp_path, "max\n", "max 100000\n", group="/system.slice/agent.service")
    write(root, {"sys/fs/cgroup/system.slice/memory.max": str(300 * MIB)})

    found = matched(root)
    assert found.memory_bytes == 300 * MIB
    assert found.host.usable_cores == 8


def test_a_group_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    root = write(
        x86(tmp_path / "host", "Intel(R) N100"),
        {"proc/self/cgroup": "0::/../../other\n1:name=systemd:/\n", "sys/fs/cgroup/x": ""},
    )
    write(tmp_path, {"other/memory.max": "1000"})

    assert detect(root).limits.memory_bytes is None


@pytest.mark.parametrize("quota", ["0 100000", "-1 100000", "100000 0", "100000", "a b", "1 2 3"])
def test_a_quota_that_is_none_is_no_limit(tmp_path: Path, quota: str) -> None:
    found = matched(container(tmp_path, "-1", quota))

    assert found.host.usable_cores == 8
    assert found.memory_bytes == 16_157_344 * 1024


def test_a_device_with_less_memory_than_claimed_has_the_smaller_and_it_is_told(
    tmp_path: Path,
) -> None:
    found = matched(board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4", kib=512 * 1024))

    assert found.memory_bytes == 512 * MIB
    assert found.notes == (
        "0.50 GiB of memory here, raspberry-pi-4b has 1.00 GiB: the smaller counts",
    )


def test_what_a_kernel_keeps_of_its_memory_is_not_worth_a_word(tmp_path: Path) -> None:
    assert matched(board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4")).notes == ()


def test_a_board_with_more_memory_than_the_smallest_has_it(tmp_path: Path) -> None:
    found = matched(board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4", kib=8 * 1024 * 1024))

    assert (found.memory_bytes, found.notes) == (8 * 1024 * MIB, ())


def test_memory_that_is_not_told_is_the_profiles(tmp_path: Path) -> None:
    root = board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4")
    (root / "proc/meminfo").unlink()

    found = matched(root)
    assert found.memory_bytes == 1024 * MIB
    assert found.notes == ("the memory of this host is not told; the profile's counts",)


def test_state_is_temperature_clock_governor_and_flags(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "61835\n",
            "sys/class/thermal/thermal_zone1/temp": "45000\n",
            "sys/class/thermal/thermal_zone2/temp": "-274000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        },
    )

    assert read_state(root) == State(
        61.835,
        1500.0,
        "ondemand",
        ("under-voltage", "throttled"),
        ("under-voltage", "throttled"),
    )
