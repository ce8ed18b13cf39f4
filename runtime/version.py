"""Which Tierwise this is."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def software() -> str:
    """Name and version of the installed distribution; without one, it is run from its sources."""
    try:
        return f"tierwise {metadata.version('tierwise')}"
    except metadata.PackageNotFoundError:
        return "tierwise (sources)"
