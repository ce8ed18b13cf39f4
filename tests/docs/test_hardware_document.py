"""The commands of docs/hardware.md run, and what it shows of profiles is what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.hosts import board, write
from hardware_profiles.judging import MAX_DRIFT, MAX_PREEMPTED_PER_S, MIN_CLOCK_SHARE, MIN_CPU_SHARE
from runtime.core.fitting import MODEL_SHARE_OF_MEMORY
from runtime.core.roofline import ERROR_FACTOR, INT8_GAIN, PER_OP_US

DOCUMENT = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)
    for line in block.splitlines()
]  # fmt: skip
SHOWN = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)
(PROFILE,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)


def ran(folder: Path, command: str) -> str:
    (folder / "my-box.toml").write_text(PROFILE)
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=folder,
        env={"XDG_DATA_HOME": str(folder), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(tmp_path: Path, command: str) -> None:
    assert ran(tmp_path, command)


def test_a_board_is_shown_as_it_is_printed(tmp_path: Path) -> None:
    root = write(
        board(tmp_path, "Raspberry Pi 4 Model B Rev 1.4"),
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": str(512 * 1024**2),
            "sys/bus/usb/devices/2-1/idVendor": "18d1\n",
            "sys/bus/usb/devices/2-1/idProduct": "9302\n",
            "sys/class/thermal/thermal_zone0/temp": "61835\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "10000\n",
        },
    )

    assert ran(tmp_path, f"tierwise hardware detect --root {root}") == SHOWN[0]


def test_profiles_are_shown_as_they_are_printed(tmp_path: Path) -> None:
    assert ran(tmp_path, "tierwise hardware list") == SHOWN[1]
    assert ran(tmp_path, "tierwise hardware show coral-usb") == SHOWN[2]


def test_a_fit_is_told_as_shown_up_to_the_figures_of_this_onnxruntime(tmp_path: Path) -> None:
    (command,) = [one for one in COMMANDS if "--profile" in one]

    def words(text: str) -> list[list[str]]:
        return [line.split()[:2] for line in text.splitlines()]

    assert words(ran(tmp_path, command)) == words(SHOWN[4])


def test_the_constants_are_those_of_the_code() -> None:
    assert (MIN_CPU_SHARE, MAX_PREEMPTED_PER_S) == (0.9, 50)
    assert (MIN_CLOCK_SHARE, MAX_DRIFT) == (0.9, 1.1)
    assert (ERROR_FACTOR, INT8_GAIN, PER_OP_US) == (5, 4, 2)
    assert MODEL_SHARE_OF_MEMORY == 0.75
