"""Decides and counts in a folder until it is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from fakes.decisions import decision
from runtime.adapters.clock import SystemClock
from runtime.adapters.decision_log import SqliteDecisionLog
from runtime.adapters.metrics import TierMetrics
from runtime.adapters.rollup_reader import Place
from runtime.common_settings import StateSettings
from runtime.exchange.forwarding import open_storage
from runtime.exchange.reporting import Rollups
from runtime.messages import Tier


async def main(folder: Path) -> None:
    clock, number = SystemClock(), 0
    with (
        SqliteDecisionLog(folder, gather_s=0) as log,
        open_storage(folder, StateSettings(), clock, TierMetrics(Tier.EDGE)) as storage,
    ):
        rollups = Rollups(log.path, storage.outbox, Place("r", "edge-1", "edge"), clock)
        sys.stdout.write("up\n")
        sys.stdout.flush()
        while True:
            log.append(decision(f"r{os.getpid()}-{number}"))
            number += 1
            if number % 7 == 0:
                await rollups.count()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
