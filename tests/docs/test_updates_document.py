"""docs/updates.md names every refusal, fault and metric, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.adapters.metrics import TierMetrics
from runtime.core.activation import Refusal
from runtime.core.mirrors import Trouble
from runtime.core.releases import Fault
from runtime.core.rollout_states import REPORTS, Execution
from runtime.errors import StorageError
from runtime.messages import Tier
from runtime.updating.orders import Refused
from runtime.updating.settings import UpdateSettings
from runtime.updating.telling import HARD_FAULTS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "updates.md").read_text()
# What an assignment cannot bring about.
_ELSEWHERE = {Refusal.STALE, Refusal.METADATA_ROLLBACK, Refusal.TOO_FAR_AHEAD, Refusal.TOO_MANY}


def rows(title: str) -> list[list[str]]:
    """The cells of the first table under a title."""
    section = DOCUMENT.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_refusal_is_in_the_table() -> None:
    known = {*Refused, *Refusal, Trouble.DIGEST_MISMATCH, StorageError.code} - _ELSEWHERE

    assert {name for row in rows("Refusals") for name in names(row[0])} == known


def test_every_fault_is_in_the_table_with_what_is_reported() -> None:
    told = {Fault(name): row[2].strip("`") for row in rows("Faults") for name in names(row[0])}

    assert told == {one: str(HARD_FAULTS.get(one, "")) for one in Fault}


def test_every_state_that_a_device_reports_is_in_the_table() -> None:
    states = {
        name for row in rows("What a device does with an assignment") for name in names(row[0])
    }
    reported = {one for told in REPORTS.values() for one in told}

    assert states == {*reported, Execution.OFFERED, Execution.SPLIT, Execution.CANCELLED}


def test_every_setting_that_is_named_exists() -> None:
    named = {name for row in rows("Switch it on") for name in names(row[0])}

    assert named <= set(UpdateSettings.__struct_fields__)


def test_every_metric_is_named() -> None:
    metrics = TierMetrics(Tier.EDGE)
    metrics.updates.set_state("", Execution)
    text = metrics.render()[0].decode()
    found = re.findall(r"# TYPE tierwise_edge_update_(\w+?)(?<!_created) ", text)

    assert found
    assert [one for one in found if f"`{one}`" not in DOCUMENT] == []
