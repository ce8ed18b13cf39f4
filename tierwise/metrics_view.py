"""Rows of answers as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tierwise.cli.output import say_table

_HEADS = {
    "escalation_rate": "RATE",
    "failed_escalations": "FAILED ESC.",
    "mean_confidence": "CONFIDENCE",
    "p50_latency_ms": "P50 MS",
    "p99_latency_ms": "P99 MS",
    "service_s": "SERVICE S",
    "last_heard_s": "",
    "silent_s": "SILENT",
    "p999_ms": "P99.9 MS",
}
_SHARES = frozenset({"escalation_rate", "late_share", "accuracy", "agreement", "low", "high"})
_TEXTS = frozenset({"source", "tiers", "versions", "retired"})
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def tell_table(by: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints at least one row, numbers to the right."""
    names = [name for name in rows[0] if _HEADS.get(name, name)]
    names.sort(key=lambda name: name not in by and name not in _TEXTS)
    texts = sum(name in by or name in _TEXTS for name in names)
    head = [_HEADS.get(name, name.replace("_", " ").upper()) for name in names]
    say_table(
        head, [[cell(name, row[name]) for name in names] for row in rows], right=len(names) - texts
    )


def cell(name: str, value: object) -> str:
    """One value as a person reads it."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    if isinstance(value, float):
        return _number(name, value)
    return "-" if value is None else str(value)


def _number(name: str, value: float) -> str:
    if name in _SHARES:
        return f"{value:.1%}"
    if name == "silent_s":
        return duration(value)
    if name == "mean_confidence":
        return f"{value:.3f}"
    return f"{value:.1f}" if name.endswith("_ms") else f"{value:.4g}"


def duration(seconds: float) -> str:
    """How long, in its largest unit."""
    for size_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if seconds >= size_s:
            return f"{seconds / size_s:.1f}{unit}"
    return f"{seconds:.0f}s"
