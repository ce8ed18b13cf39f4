"""Whether the cloud has counted every decision of every tier, once all are well again."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from chaos.fleet import Fleet
from runtime.adapters.decision_query import logs_in
from runtime.errors import TierwiseError
from tierwise.metrics_store import ask_store

# A rollup every 2 s at the device, one at the gateway, and outboxes that waited through faults.
SETTLE_S = 45.0
_PAUSE_S = 1.0


def reconciled(fleet: Fleet) -> dict[str, Any]:
    """What logs hold and what the cloud has counted, when they agree or the time is over.

    ``is_equal``: every decision that a log ever held was counted, or is told as missing, unread or
    dropped; ``lost`` is how many are told so.
    """
    fleet.heal()
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        found = _compared(fleet.folder / "state")
        if found["is_equal"] or time.monotonic() > deadline_s:
            return found
        time.sleep(_PAUSE_S)


def _compared(state: Path) -> dict[str, Any]:
    logged = {folder.name: _held(folder) for folder in sorted(state.iterdir())}
    store = str(state / "cloud" / "telemetry.sqlite")
    try:
        fleet = ask_store(store, "fleet", {}, 100)[0]["rows"]
        tiers = ask_store(store, "escalations", {"by": "tier"}, 100)[0]["rows"]
    except TierwiseError as error:
        return {"is_equal": False, "why": str(error), "logged": logged}
    counted = sum(row["requests"] for row in tiers)
    lost = sum(row["missing"] + row["unread"] for row in fleet)
    told = {row["group"]["site"]: row["decisions"] for row in fleet}
    return {
        "is_equal": counted + lost == sum(logged.values()) == sum(told.values()),
        "logged": logged,
        "counted": counted,
        "lost": lost,
        "dropped": sum(row["dropped"] for row in fleet),
    }


def _held(folder: Path) -> int:
    """The decisions that the log of a tier has ever held."""
    total = 0
    for path in logs_in(folder):
        with closing(sqlite3.connect(path)) as log:
            (last,) = log.execute("SELECT coalesce(max(rowid), 0) FROM decisions").fetchone()
            total += last
    return total
