"""Metrics of the disk that a tier's state folder is on, measured when they are asked for."""

from __future__ import annotations

import shutil
from math import nan
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge


class StateMetrics:
    """Measured beside ``TierMetrics``, whose registry and prefix they share."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._free = Gauge(
            f"{name}_state_free_bytes",
            "Free bytes of the disk with the state folder; not a number while it is not known",
            registry=registry,
        )
        self._size = Gauge(
            f"{name}_state_disk_bytes",
            "Size of the disk with the state folder; not a number while it is not known",
            registry=registry,
        )
        self._free.set(nan)
        self._size.set(nan)

    def measure(self, folder: Path) -> None:
        """Measures this folder's disk from now on, each time that somebody asks."""
        self._free.set_function(lambda: _free_and_size(folder)[0])
        self._size.set_function(lambda: _free_and_size(folder)[1])


def _free_and_size(folder: Path) -> tuple[float, float]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        # A disk that is gone says nothing, and costs no other metric.
        return nan, nan
    return usage.free, usage.total
