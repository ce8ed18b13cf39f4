"""Energy that a host measures itself: RAPL of Intel and AMD processors, INA3221 of Jetsons.

RAPL counts uJ of the processor's packages and begins again at 0 after ``max_energy_range_uj``
(kernel documentation, power/powercap). The INA3221 tells V and A at a moment, so that its energy is
the mean of what was read while the model ran (kernel documentation, hwmon/ina3221).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hardware_profiles.measurement import Energy
from hardware_profiles.reading import number_of, paths_in, text_of

# The rail that feeds a whole module, as NVIDIA's boards call it.
_WHOLE = ("VDD_IN", "POM_5V_IN")
_CHANNELS = (1, 2, 3)


@dataclass(slots=True)
class EnergyMeter:
    """Reads what there is at ``start``, ``sample`` and ``stop``; ``root`` is where ``sys`` is."""

    root: Path = Path("/")
    _packages: list[tuple[Path, int]] = field(default_factory=list)
    _powers_w: list[float] = field(default_factory=list)
    _start_s: float = 0.0

    def start(self, now_s: float) -> None:
        """Begins to count."""
        self._start_s = now_s
        self._powers_w.clear()
        self._packages = [
            (path, number)
            for path in paths_in(self.root / "sys/class/powercap", "*-rapl:?/energy_uj")
            if (number := number_of(path)) is not None and number >= 0
        ]
        self.sample()

    def sample(self) -> None:
        """Reads the power of this moment, where there is a sensor."""
        power_w = self._whole_w()
        if power_w is not None and power_w >= 0:
            self._powers_w.append(power_w)

    def stop(self, now_s: float) -> Energy | None:
        """What was used since the start; None where nothing can be read."""
        passed_s = now_s - self._start_s
        if passed_s <= 0:
            return None
        if self._powers_w:
            mean_w = sum(self._powers_w) / len(self._powers_w)
            return Energy(mean_w * passed_s, mean_w, "INA3221, the whole module", True)
        used_j = [self._used_j(path, before) for path, before in self._packages]
        known_j = [one for one in used_j if one is not None]
        if not known_j or len(known_j) < len(used_j):
            return None
        return Energy(sum(known_j), sum(known_j) / passed_s, "RAPL, the processor", False)

    def _used_j(self, path: Path, before: int) -> float | None:
        after = number_of(path)
        if after is None:
            return None
        if after < before:
            after += number_of(path.with_name("max_energy_range_uj")) or 0
        return (after - before) / 1e6 if after >= before else None

    def _whole_w(self) -> float | None:
        for name in paths_in(self.root / "sys/class/hwmon", "hwmon*/name"):
            if text_of(name) != "ina3221":
                continue
            for channel in _CHANNELS:
                if text_of(name.with_name(f"in{channel}_label")) not in _WHOLE:
                    continue
                millivolts = number_of(name.with_name(f"in{channel}_input"))
                milliamperes = number_of(name.with_name(f"curr{channel}_input"))
                if millivolts is not None and milliamperes is not None:
                    return millivolts * milliamperes / 1e6
        return None
