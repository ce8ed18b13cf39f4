"""Bounds of what senders can make grow, and of what is kept. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_tier.telemetry.intake import DAY_S, MINUTE_S


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what senders can make grow; over them rows become ``(other)``."""

    series_per_site: int = 2000
    series: int = 200_000
    sources_per_site: int = 64
    sources: int = 100_000
    audit_kinds_per_site: int = 64


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept, in s, and how many at all.

    ``applied_s`` is how long an item is known that comes again: longer than any outbox keeps it.
    ``sample_s`` and ``max_samples`` are for decisions that are told whole; with 0 none is kept.
    """

    minute_s: float = 2 * DAY_S
    hour_s: float = 90 * DAY_S
    day_s: float = 5 * 366 * DAY_S
    max_rows: int = 20_000_000
    applied_s: float = 90 * DAY_S
    sample_s: float = 7 * DAY_S
    max_samples: int = 200_000

    def __post_init__(self) -> None:
        """Refuses coarse rows that go before the fine ones."""
        if not MINUTE_S <= self.minute_s <= self.hour_s <= self.day_s:
            raise ValueError("minutes are not kept longer than hours, nor these longer than days")
