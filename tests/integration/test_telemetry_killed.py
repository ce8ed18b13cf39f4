"""A process that counts telemetry is killed again and again: every rollup still counts once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cloud_tier.telemetry import tables
from cloud_tier.telemetry.cuts import CUTS
from cloud_tier.telemetry.database import open_engine
from fakes import killed_telemetry

NUM = 2000
pytestmark = pytest.mark.timeout(120)


def life(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, killed_telemetry.__file__, url, str(NUM)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


def counted(url: str) -> dict[str, int]:
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {
            "decisions": connection.execute(select(func.sum(tables.minute.c.count))).scalar_one(),
            "items": connection.execute(
                select(func.count()).select_from(tables.applied)
            ).scalar_one(),
            "short": connection.execute(
                select(func.sum(tables.short_new.c.count)).where(
                    tables.short_new.c.cut == CUTS[0].number
                )
            ).scalar_one(),
            "covered": connection.execute(select(func.sum(tables.sources.c.counted))).scalar_one(),
        }
    engine.dispose()
    return {name: int(num or 0) for name, num in found.items()}


def test_every_rollup_counts_once_through_kills(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'telemetry.sqlite'}"

    after = []
    for num_batches in (1, 2, 5, 9):
        process = life(url)
        assert process.stdout is not None
        for _ in range(num_batches):
            assert process.stdout.readline() == "counted\n"
        # The next batch is on its way.
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.wait(30)
        after.append(counted(url))
    whole = life(url)
    output, _ = whole.communicate(timeout=90)

    assert output.endswith("done\n")
    assert all(len(set(one.values())) == 1 for one in after)
    assert after[0]["decisions"] >= 32
    assert counted(url) == dict.fromkeys(("decisions", "items", "short", "covered"), NUM)
