"""``tierwise metrics escalations``: who answers, what climbs, and what comes of it."""

from __future__ import annotations

import argparse
import re
import time
from typing import TYPE_CHECKING

from tierwise.cli.output import note, say_csv, say_json, say_table
from tierwise.cli.types import add_group, add_state

if TYPE_CHECKING:
    from runtime.adapters.decision_query import EscalationReport, EscalationRow
    from tierwise.cli.types import Subparsers

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COUNTS = (
    "requests", "answered_here", "escalated", "escalation_rate", "failed_escalations", "degraded",
    "abstained", "failed", "mean_confidence", "p50_latency_ms", "p99_latency_ms",
)  # fmt: skip


def duration_s(text: str) -> float:
    """Seconds of ``90s``, ``15m``, ``1h`` or ``7d``.

    Raises:
        ArgumentTypeError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration: write a number and s, m, h or d, such as 90s, 15m, 1h, 7d"
        )
    return float(found[1]) * _UNITS_S[found[2]]


def dimensions(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list.

    Raises:
        ArgumentTypeError: one is unknown.
    """
    # Reads SQLite's module only when the option is used.
    from runtime.adapters.decision_query import check_dimensions  # noqa: PLC0415

    try:
        return check_dimensions(name.strip() for name in text.split(",") if name.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "metrics", "ask the decision logs")
    text = "rates of escalation, by tier, model, reason, region and more"
    parser = group.add_parser(
        "escalations",
        help=text,
        description=f"{text.capitalize()}. Every request counts once. Without `tier` in --by, only "
        "the tier that the caller asked counts; with it, every tier's own decisions. A failed "
        "escalation is one that no tier above answered.",
    )
    add_state(parser)
    parser.add_argument(
        "--since",
        type=duration_s,
        default=None,
        metavar="DURATION",
        help="only the last 90s, 15m, 1h, 7d (default: everything)",
    )
    parser.add_argument(
        "--by",
        type=dimensions,
        default=("tier",),
        metavar="NAMES",
        help="comma-separated: tier, model, model_version, reason (why the tier decided so), "
        "end_reason (how it ended), region, site, outcome, answered_by, policy, gear, route, "
        "guarantee, rule (default: tier)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the rows as JSON; errors as JSON, too")
    form.add_argument("--csv", action="store_true", help="the rows as comma-separated values")
    parser.set_defaults(run=_escalations)


def _escalations(arguments: argparse.Namespace) -> int:
    from runtime.adapters.decision_query import logs_in, query_escalations  # noqa: PLC0415

    paths = logs_in(arguments.state)
    since_s = 0.0 if arguments.since is None else time.time() - arguments.since
    report = query_escalations(paths, since_s=since_s, by=arguments.by)
    _print(arguments, report)
    if not report.rows:
        period = "" if arguments.since is None else " in that time"
        wider = "" if arguments.since is None else ", or ask with a longer --since"
        note(
            f"no decisions{period} in {len(paths)} decision log(s) in {arguments.state}: "
            f"send requests{wider}"
        )
    if report.num_deleted:
        note(f"{report.num_deleted} older decisions were deleted to keep the logs in their quota")
    return 0


def _print(arguments: argparse.Namespace, report: EscalationReport) -> None:
    by = arguments.by
    if arguments.json:
        rows = [
            {**dict(zip(by, row.group, strict=True)), **{n: getattr(row, n) for n in _COUNTS}}
            for row in report.rows
        ]
        say_json({"by": list(by), "rows": rows, "deleted_decisions": report.num_deleted})
    elif arguments.csv:
        say_csv(
            (*by, *_COUNTS),
            [(*row.group, *(getattr(row, name) for name in _COUNTS)) for row in report.rows],
        )
    elif report.rows:
        head = [
            *(name.upper() for name in by), "REQUESTS", "ANSWERED HERE", "ESCALATED", "RATE",
            "FAILED ESC.", "DEGRADED", "ABSTAINED", "FAILED", "CONFIDENCE", "P50 MS", "P99 MS",
        ]  # fmt: skip
        say_table(head, [_cells(row) for row in report.rows], right=len(_COUNTS))


def _cells(row: EscalationRow) -> list[str]:
    confidence = "-" if row.mean_confidence is None else f"{row.mean_confidence:.3f}"
    return [
        *row.group,
        f"{row.requests}",
        f"{row.answered_here}",
        f"{row.escalated}",
        f"{row.escalation_rate:.1%}",
        f"{row.failed_escalations}",
        f"{row.degraded}",
        f"{row.abstained}",
        f"{row.failed}",
        confidence,
        f"{row.p50_latency_ms:.1f}",
        f"{row.p99_latency_ms:.1f}",
    ]
