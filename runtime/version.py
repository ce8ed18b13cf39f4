"""Which Tierwise this is."""

from __future__ import annotations

from functools import cache
from importlib import metadata

# 2026-10-01, in seconds since 1970: a clock that is earlier is wrong. Raised with each release.
BUILT_S = 1_790_812_800.0


@cache
def software() -> str:
    """Name and version of the installed distribution; without one, it is run from its sources."""
    try:
        return f"tierwise {metadata.version('tierwise')}"
    except metadata.PackageNotFoundError:
        return "tierwise (sources)"
