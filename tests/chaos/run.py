"""Runs the hierarchy over bad links, hurts it, and writes a table of what its callers saw.

``python -m chaos.run`` with tests/ in the path; ``make chaos`` does. Needs root and /dev/net/tun,
and says so where it has not got them.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from chaos.fleet import Answered, Fleet, answers_in
from chaos.network import missing
from chaos.rows import ROWS, Row
from chaos.telemetry import reconciled
from runtime.adapters.decision_query import logs_in

BUDGET_MS = 150.0
RATE = 100.0
REQUESTS = 5000
# Of requests in their budget, and over it in ms; the second pair is for machines of unknown load.
STRICT = 0.999, 20.0
IN_CI = 0.97, 250.0
REQUESTS_IN_CI = 1500
FAILED, NOT_HERE = 1, 77


def run_row(row: Row, requests: int) -> dict[str, Any]:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="tw-") as name:
        folder = Path(name)
        with Fleet(folder, disk_mb=row.disk_mb, own_clock=row.own_clock) as fleet:
            fleet.wait_ready()
            fleet.near.set(*row.link)
            fleet.far.set(*row.link)
            caller, output = fleet.caller(requests, rate=RATE, budget_ms=BUDGET_MS, prefix="row")
            began_s = time.monotonic()
            for share, act in row.acts:
                time.sleep(max(0.0, began_s + share * requests / RATE - time.monotonic()))
                act(fleet)
            if caller.wait(requests / RATE + 60):
                raise RuntimeError("the caller crashed")
            answers = answers_in(output)
            telemetry = reconciled(fleet) if row.is_counted else None
            # So that its log is whole; and its disk may be gone with the fleet.
            fleet.programs["edge"].close()
            effects = _effects(folder)
    return judge(row, requests, answers, effects) | {"telemetry": telemetry}


def judge(
    row: Row, requests: int, answers: list[Answered], effects: dict[str, int]
) -> dict[str, Any]:
    """The row, from what the caller saw and what the agent wrote down."""
    good = {
        one.request_id
        for one in answers
        if one.elapsed_ms is not None
        and one.answered_id == one.request_id
        and one.outcome in ("answered", "degraded")
    }
    elapsed = np.array([one.elapsed_ms for one in answers if one.elapsed_ms is not None])
    in_time = [
        one for one in answers if one.request_id in good and (one.elapsed_ms or 0) <= BUDGET_MS
    ]
    over = np.maximum(0.0, elapsed - BUDGET_MS)
    tiers = [one.tier or "none" for one in answers]
    return {
        "row": row.name,
        "requests": requests,
        "in_budget": len(in_time) / requests,
        "lost_ids": requests - len(good),
        "duplicate_effects": sum(count - 1 for count in effects.values() if count > 1),
        "overshoot_ms_p999": round(float(np.quantile(over, 0.999)), 2) if len(over) else None,
        "recovery_s": _recovery_s(answers) if row.hurts_agent else None,
        "answered_by": {tier: tiers.count(tier) for tier in sorted(set(tiers))},
    }


def _recovery_s(answers: list[Answered]) -> float:
    """The longest run of requests without an answer in time, in seconds."""
    longest = current = 0
    ordered = sorted(answers, key=lambda one: int(one.request_id.rpartition("-")[2]))
    for one in ordered:
        is_missing = one.elapsed_ms is None or one.elapsed_ms > BUDGET_MS
        current = current + 1 if is_missing else 0
        longest = max(longest, current)
    return round(longest / RATE, 2)


def _effects(folder: Path) -> dict[str, int]:
    """How often each request is in the agent's decision log."""
    found: dict[str, int] = {}
    for path in logs_in(folder / "state" / "edge"):
        with closing(sqlite3.connect(path)) as log:
            rows = log.execute("SELECT request_id, count(*) FROM decisions GROUP BY request_id")
            found.update((request_id, count) for request_id, count in rows)
    return found


def _counted(result: dict[str, Any]) -> str:
    """How many of all tiers' decisions the cloud has counted."""
    telemetry = result["telemetry"]
    if telemetry is None:
        return ""
    told = f"  {telemetry.get('counted', 0)}/{sum(telemetry['logged'].values())} counted"
    return told + (f", {telemetry['lost']} told as lost" if telemetry.get("lost") else "")


def is_kept(result: dict[str, Any], row: Row, limits: tuple[float, float]) -> bool:
    """Whether a row keeps the promises."""
    if result["duplicate_effects"] or (row.is_counted and not result["telemetry"]["is_equal"]):
        return False
    if row.hurts_agent:
        return True
    kept: tuple[bool, ...] = (
        result["in_budget"] >= limits[0],
        result["lost_ids"] == 0,
        result["overshoot_ms_p999"] <= limits[1],
    )
    return all(kept)


def main() -> int:
    """Runs the rows, prints the table, writes it as JSON; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ci", action="store_true", help="a few short rows, looser limits")
    parser.add_argument("--row", action="append", help="only rows whose name contains this")
    parser.add_argument("--requests", type=int, help=f"per row (default: {REQUESTS})")
    parser.add_argument("--output", type=Path, default=Path("chaos-results.json"))
    options = parser.parse_args()
    if why := missing():
        print(f"CHAOS TESTS DID NOT RUN: {why}; they need root, iproute2 and /dev/net/tun")
        return 0 if options.ci else NOT_HERE
    chosen = [
        row
        for row in ROWS
        if (row.is_in_ci or not options.ci)
        and (not options.row or any(part in row.name for part in options.row))
    ]
    requests = options.requests or (REQUESTS_IN_CI if options.ci else REQUESTS)
    results, broken = [], []
    head = f"{'row':32} {'requests':>8} {'in budget':>9} {'lost':>5} {'twice':>5} over p99.9"
    print(head)
    for row in chosen:
        result = run_row(row, requests)
        results.append(result)
        is_good = is_kept(result, row, IN_CI if options.ci else STRICT)
        if not is_good:
            broken.append(row.name)
        recovery = f"  recovered in {result['recovery_s']} s" if row.hurts_agent else ""
        print(
            f"{row.name:32} {result['requests']:8} {result['in_budget']:9.2%} "
            f"{result['lost_ids']:5} {result['duplicate_effects']:5} "
            f"{result['overshoot_ms_p999']!s:>7} ms{_counted(result)}{recovery}"
            f"{'' if is_good else '  BROKEN'}",
            flush=True,
        )
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return FAILED if broken else 0


if __name__ == "__main__":
    sys.exit(main())
