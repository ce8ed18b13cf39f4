"""Writes the tables of docs/prometheus.md anew, from what the registries of the tiers hold.

python tests/golden/metrics_document.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from runtime.adapters.metrics import TierMetrics
from runtime.messages import Tier

DOCUMENT = Path(__file__).parents[2] / "docs" / "prometheus.md"
MARK = "<!-- From here on written by tests/golden/metrics_document.py -->\n"
TIERS = {"edge": Tier.EDGE, "regional": Tier.REGIONAL, "cloud": Tier.CLOUD}
# What only some tiers have.
MORE = {
    "edge": ("updates", "tracing"),
    "regional": ("updates", "transfers", "tracing"),
    "cloud": ("transfers", "rollouts", "reviews", "tracing"),
}
_UNITS = ("seconds", "bytes", "ratio")


class Described(NamedTuple):
    """A metric as Prometheus names its series, without the prefix of its tier."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    tiers: tuple[str, ...]


def registries() -> dict[str, Any]:
    """The registry of each tier, with all parts that it may have."""
    found: dict[str, Any] = {}
    for name, tier in TIERS.items():
        metrics = TierMetrics(tier)
        for part in MORE[name]:
            getattr(metrics, part)
        found[name] = metrics._registry
    return found


def described() -> list[Described]:
    """All metrics of all tiers, by name."""
    rows: dict[str, Described] = {}
    for tier, registry in registries().items():
        for collector in set(registry._collector_to_names):
            name = collector._name.removeprefix(f"tierwise_{tier}_")
            kind = collector._type
            if kind == "counter":
                name += "_total"
            words = name.removesuffix("_total").split("_")
            unit = next((word for word in words if word in _UNITS), words[-1])
            before = rows.get(name)
            rows[name] = Described(
                name,
                kind,
                unit,
                tuple(collector._labelnames),
                collector._documentation,
                (*(before.tiers if before else ()), tier),
            )
    return [rows[name] for name in sorted(rows)]


def table() -> str:
    """The tables as Markdown."""
    lines = ["| name after `tierwise_<tier>_` | type | unit | labels | tiers | meaning |"]
    lines.append("|---|---|---|---|---|---|")
    for one in described():
        labels = ", ".join(f"`{label}`" for label in one.labels) or "-"
        tiers = "all" if len(one.tiers) == len(TIERS) else ", ".join(one.tiers)
        meaning = one.meaning.replace("|", "\\|")
        lines.append(f"| `{one.name}` | {one.kind} | {one.unit} | {labels} | {tiers} | {meaning} |")
    return "\n".join(lines) + "\n"


def document(before: str) -> str:
    """The document with its tables written anew."""
    head, mark, _ = before.partition(MARK)
    return head + mark + "\n" + table()


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text()))
