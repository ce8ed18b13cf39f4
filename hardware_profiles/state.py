"""How a host is at this moment: temperature, clock, governor, and whether it is held back."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hardware_profiles.reading import number_of, paths_in, text_of

_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
# Bits of the Raspberry Pi's firmware (documentation of `vcgencmd get_throttled`).
_FLAGS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
_HAS_OCCURRED = 16
# A sensor that says more, or less, is not a sensor.
_PLAUSIBLE_C = (-60.0, 200.0)


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """``temperature_c`` is the hottest zone's, ``clock_mhz`` that of the fastest core.

    ``throttled_now`` and ``throttled_before`` (since the start of the system) are the words of the
    firmware. None and empty where nothing is told.
    """

    temperature_c: float | None = None
    clock_mhz: float | None = None
    governor: str = ""
    throttled_now: tuple[str, ...] = ()
    throttled_before: tuple[str, ...] = ()


def read_state(root: Path = Path("/")) -> State:
    """The host's state; ``root`` is where ``sys`` is found."""
    zones = [
        number / 1000
        for path in paths_in(root / "sys/class/thermal", "thermal_zone*/temp")
        if (number := number_of(path)) is not None
    ]
    low, high = _PLAUSIBLE_C
    clocks = [
        number / 1000
        for path in paths_in(root / "sys/devices/system/cpu", "cpu*/cpufreq/scaling_cur_freq")
        if (number := number_of(path)) is not None and number > 0
    ]
    flags = _flags(text_of(root / _THROTTLED))
    return State(
        temperature_c=max((zone for zone in zones if low < zone < high), default=None),
        clock_mhz=max(clocks, default=None),
        governor=text_of(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        throttled_now=tuple(word for bit, word in _FLAGS.items() if flags >> bit & 1),
        throttled_before=tuple(
            word for bit, word in _FLAGS.items() if flags >> (bit + _HAS_OCCURRED) & 1
        ),
    )


def _flags(text: str) -> int:
    try:
        return int(text.removeprefix("throttled="), 16) if len(text) < 32 else 0  # noqa: PLR2004
    except ValueError:
        return 0
