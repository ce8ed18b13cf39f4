"""docs/updates.md names every refusal, fault and metric, and no other; its commands are typed."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from edge_agent.http_api import InferenceApi
from fakes.documents import blocks_of, lines_of
from fakes.shell import run_line
from fakes.updating import Load, comes_to, plant_in
from runtime.adapters.http_server import serving
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


@pytest.mark.timeout(60)
async def test_people_at_a_device_look_and_go_back(tmp_path: Path) -> None:
    (block,) = [one for one in blocks_of(DOCUMENT, "updates.md") if one.language == "bash"]
    look, go_back = lines_of(block)
    async with plant_in(tmp_path) as plant, plant.agent() as agent, Load(agent) as load:
        plant.assign(1, plant.publish(1))
        await comes_to(agent, Execution.CONFIRMED)
        async with serving(InferenceApi(agent).app(), "127.0.0.1", 0) as url:

            async def typed(line: str) -> Any:
                line = line.replace("http://127.0.0.1:8470", url).replace("curl", "curl -sS", 1)
                return json.loads(await asyncio.to_thread(run_line, line, tmp_path))

            shown = await typed(look)
            returned = await typed(go_back)
            await load.goes_on()
            refused = await typed(go_back)

    # What serves, how the assignment stands, what was counted; afterwards, the way back.
    assert shown["serving"]["version"] == "v1"
    assert shown["assignment"]["state"] == "confirmed"
    assert shown["counted"]
    assert returned["serving"]["version"] == "factory"
    assert returned["assignment"]["reason"] == "operator: calls cats dogs"
    assert "error" in refused
    assert load.failed == []
