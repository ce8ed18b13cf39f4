"""raspberry-pi.md and jetson.md: what they show of a board is printed for such a board."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.documents import ROOT, SHELL, blocks_of, commands_in, lines_of, tierwise_words
from fakes.hosts import A76, board, write
from fakes.shell import form

PAGES = {name: ROOT / "docs" / name for name in ("raspberry-pi.md", "jetson.md")}
BLOCKS = {name: blocks_of(path.read_text(), name) for name, path in PAGES.items()}
THERMAL = "sys/class/thermal/thermal_zone0/temp"
GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
CLOCK = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
L4T = "# R36 (release), REVISION: 4.3, BOARD: generic, EABI: aarch64\n"


def raspberry_pi_5(root: Path) -> Path:
    cool = {THERMAL: "54250\n", GOVERNOR: "ondemand\n", CLOCK: "2400000\n", THROTTLED: "0\n"}
    return write(board(root, "Raspberry Pi 5 Model B Rev 1.0", features=A76, kib=8_245_000), cool)


def jetson_orin_nano(root: Path) -> Path:
    name = "NVIDIA Jetson Orin Nano Developer Kit"
    return write(
        board(root, name, cores=6, features=A76, kib=7_619_000), {"etc/nv_tegra_release": L4T}
    )


def ran(folder: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", *words],
        cwd=folder,
        env={"XDG_DATA_HOME": str(folder), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def shown(name: str) -> list[str]:
    """What a page shows as printed."""
    return [block.text for block in BLOCKS[name] if block.language == "text"]


def commands(name: str, *words: str) -> list[list[str]]:
    """What a page has ``tierwise`` do, beginning with these words."""
    told = [
        tierwise_words(one)
        for block in BLOCKS[name]
        if block.language in SHELL
        for line in lines_of(block)
        for one in commands_in(line)
    ]
    return [one for one in told if one and tuple(one[: len(words)]) == words]


@pytest.mark.parametrize(
    ("name", "device"), [("raspberry-pi.md", raspberry_pi_5), ("jetson.md", jetson_orin_nano)]
)
def test_a_board_is_found_as_it_is_shown(
    name: str, device: Callable[[Path], Path], tmp_path: Path
) -> None:
    (command,) = commands(name, "hardware", "detect")

    assert ran(tmp_path, *command, "--root", str(device(tmp_path))) in shown(name)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", PAGES)
def test_profiles_are_shown_as_they_are(name: str, tmp_path: Path) -> None:
    told = [ran(tmp_path, *command) for command in commands(name, "hardware", "show")]

    assert told
    # A Raspberry Pi is shown by what fits it.
    assert [text in shown(name) for text in told] == {"jetson.md": [True, False]}.get(name, [False])


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("name", "code"), [("raspberry-pi.md", 0), ("jetson.md", 1)])
def test_what_fits_is_told_as_it_is_shown(name: str, code: int, tmp_path: Path) -> None:
    (command,) = commands(name, "hardware", "fit")

    told = ran(tmp_path, *command, code=code)

    # The figures are of this ONNX Runtime.
    assert form(told) in map(form, shown(name))


@pytest.mark.timeout(60)
def test_a_model_is_measured(tmp_path: Path) -> None:
    (command,) = commands("raspberry-pi.md", "hardware", "bench")
    assert commands("jetson.md", "hardware", "bench") == [command]

    assert "P50 MS" in ran(tmp_path, *command)


def test_the_settings_of_the_guide_are_checked_as_it_says(tmp_path: Path) -> None:
    (settings,) = [one.text for one in BLOCKS["raspberry-pi.md"] if one.language == "toml"]
    (tmp_path / "agent.toml").write_text(settings)
    (command,) = commands("raspberry-pi.md", "config", "check")

    told = shlex.join(command).replace("/etc/tierwise/", "")

    assert ran(tmp_path, *shlex.split(told))


@pytest.mark.parametrize("name", [*PAGES, "deployment.md"])
def test_the_installer_takes_the_options_that_are_shown(name: str) -> None:
    lines = [
        one
        for block in blocks_of((ROOT / "docs" / name).read_text(), name)
        if block.language in SHELL
        for line in lines_of(block)
        for one in commands_in(line)
        if one[:2] == ["sh", "deploy/install.sh"]
    ]

    assert lines
    for words in lines:
        # A Python of the device.
        told = [sys.executable if word.startswith("/usr/bin/") else word for word in words]
        done = subprocess.run(
            [*told, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_what_the_installer_is_said_to_say_it_says(name: str) -> None:
    code = (ROOT / "deploy" / "install.sh").read_text()
    quoted = re.findall(r"`install: ([^`]+)`", PAGES[name].read_text())

    assert quoted
    for text in quoted:
        assert text.removesuffix(" armv7l") in code, text
