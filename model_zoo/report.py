"""What a build reports."""

from __future__ import annotations

import msgspec

from model_zoo.calibrate import CascadeResult
from runtime.policy import Promise


class Candidate(msgspec.Struct, frozen=True):
    """One way to quantize, and what it came to on calibration pictures; ``log_loss`` in nats."""

    choice: str
    accuracy: float
    log_loss: float
    size_bytes: int


class TierReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one tier; accuracies and errors are of the test set.

    ``typical_ms`` is the time of one picture on the building machine, summed over members;
    ``members`` are their own accuracies; ``tried`` the ways to quantize, best first.
    """

    accuracy: float
    accuracy_float32: float
    ece_before: float
    ece_after: float
    temperature: float
    accept_at: float
    parameters: int
    size_bytes: int
    typical_ms: float
    numeric_format: str
    members: dict[str, float] = {}
    tried: tuple[Candidate, ...] = ()


class BundleReport(msgspec.Struct, frozen=True):
    """What became of a build.

    ``cascade`` is of the test set at the chosen thresholds, ``policy`` of the fitted gear.
    """

    name: str
    version: str
    folder: str
    size_bytes: int
    tiers: dict[str, TierReport]
    cascade: CascadeResult
    policy: Promise | None = None


def as_json(report: BundleReport) -> str:
    """The report for programs, indented."""
    return msgspec.json.format(msgspec.json.encode(report)).decode()


def summary(report: BundleReport) -> str:
    """The report as a small table for people."""
    lines = [
        f"{report.name} {report.version} in {report.folder}, {report.size_bytes / 1e6:.1f} MB",
        f"{'tier':<10}{'accuracy':>9}{'float32':>9}{'ECE':>8}{'accept at':>11}{'KB':>8}{'ms':>8}",
    ]
    lines.extend(
        f"{name:<10}{tier.accuracy:>9.4f}{tier.accuracy_float32:>9.4f}{tier.ece_after:>8.4f}"
        f"{tier.accept_at:>11.2f}{tier.size_bytes / 1000:>8.0f}{tier.typical_ms:>8.2f}"
        for name, tier in report.tiers.items()
    )
    cascade = report.cascade
    lines.append(
        f"cascade   {cascade.accuracy:>9.4f}   answered by edge {cascade.edge_share:.1%}, "
        f"regional {cascade.regional_share:.1%}, cloud {cascade.cloud_share:.1%}"
    )
    if report.policy is not None:
        shares = ", ".join(
            f"{tier} {share:.1%}" for tier, share in report.policy.answered_by.items()
        )
        lines.append(f"policy    {report.policy.accuracy.mean:>9.4f}   answered by {shares}")
    return "\n".join(lines)
