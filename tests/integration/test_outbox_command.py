"""``tierwise outbox``: what waits, what is parked, what was given up, what has arrived."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from runtime.adapters.clock import SystemClock
from runtime.adapters.corrections import SqliteCorrections
from runtime.adapters.outbox import SqliteOutbox
from runtime.adapters.outbox_metrics import OutboxMetrics
from runtime.adapters.outbox_schema import open_file
from runtime.adapters.received import SqliteReceived
from runtime.core.outbox import Limits
from runtime.messages import ItemKind, Outcome, Reason, Said
from runtime.ports import OutboxItem
from tierwise.cli import main

Output = pytest.CaptureFixture[str]
WAS = Said(Outcome.DEGRADED, Reason.NO_UPSTREAM, label=1)


def told(capsys: Output, *words: object, code: int = 0) -> str:
    assert main([*map(str, words)]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


@pytest.fixture
def state(tmp_path: Path) -> Path:
    asyncio.run(fill(tmp_path / "edge"))
    return tmp_path


async def fill(folder: Path) -> None:
    clock = SystemClock()
    now_s = clock.wall_s()
    with open_file(folder, max_bytes=2**24) as file:
        metrics = OutboxMetrics("m", CollectorRegistry())
        outbox = SqliteOutbox(file, Limits(max_items=3), clock, metrics)
        corrections = SqliteCorrections(outbox, clock, max_age_s=1e6)
        received = SqliteReceived(outbox, clock, max_bytes=2**20, sends_on=False)
        await outbox.put(OutboxItem("m1", ItemKind.METRICS, now_s, b"{}"))
        await outbox.put(OutboxItem("f1", ItemKind.FEEDBACK, now_s - 7200, b'{"label":1}'))
        await outbox.put(OutboxItem("p1", ItemKind.AUDIT, now_s, b"{}", properties=(("a", "b"),)))
        corrections.expect("q1", WAS, OutboxItem("e1", ItemKind.ESCALATION, now_s, b"\xff\x00"))
        await outbox.refused("p1", "malformed_body")
        for number in range(2):
            one = OutboxItem(f"r{number}", ItemKind.FEEDBACK, now_s - 60, b"{}", origin="r/a")
            await received.take_over(one, "gateway-1")


def listed(capsys: Output, state: Path) -> Any:
    return json.loads(told(capsys, "outbox", "list", "--state", state, "--json"))


def test_what_waits_is_listed_in_the_order_in_which_it_is_sent(state: Path, capsys: Output) -> None:
    text = told(capsys, "outbox", "list", "--state", state)
    said = listed(capsys, state)

    assert [one["item"] for one in said["items"]] == ["f1", "e1", "p1"]
    assert said["dropped"] == {"metrics:room": 1}
    assert "2h" in text
    assert "parked: malformed_body" in text
    assert "2 waiting, 1 parked" in text
    assert "given up: 1 metrics (room)" in text


def test_one_item_is_shown_with_what_is_in_it(state: Path, capsys: Output) -> None:
    said = json.loads(told(capsys, "outbox", "show", "f1", "--state", state, "--json"))
    text = told(capsys, "outbox", "show", "e1", "--state", state)

    assert said["content"] == {"label": 1}
    assert "2 bytes" in text
    assert "nothing of this id" in told(capsys, "outbox", "show", "x", "--state", state, code=3)


@pytest.mark.parametrize("ids", [[], ["p1", "f1"]])
def test_what_is_parked_is_retried(state: Path, capsys: Output, ids: list[str]) -> None:
    text = told(capsys, "outbox", "retry", *ids, "--state", state)

    assert text == "1 retried\n"
    assert [one["parked"] for one in listed(capsys, state)["items"]] == ["", "", ""]


def test_what_is_dropped_is_counted_and_nobody_waits_for_it(state: Path, capsys: Output) -> None:
    said = told(capsys, "outbox", "drop", "e1", "nothing", "--state", state, "--json")
    after = listed(capsys, state)

    async def known() -> str:
        with open_file(state / "edge", max_bytes=2**24) as file:
            outbox = SqliteOutbox(
                file, Limits(), SystemClock(), OutboxMetrics("m", CollectorRegistry())
            )
            found = await SqliteCorrections(outbox, SystemClock(), max_age_s=1e6).known("q1")
        assert found is not None
        return found.state

    assert json.loads(said) == {"dropped": 1}
    assert after["dropped"]["escalation:operator"] == 1
    assert asyncio.run(known()) == "dropped"


def test_what_has_arrived_is_listed_newest_first(state: Path, capsys: Output) -> None:
    text = told(capsys, "outbox", "received", "--state", state)
    said = json.loads(
        told(capsys, "outbox", "received", "--state", state, "--json", "--kind", "feedback")
    )
    none = told(capsys, "outbox", "received", "--state", state, "--kind", "audit")

    assert [one["item"] for one in said["received"]] == ["r1", "r0"]
    assert said["received"][0]["sender"] == "gateway-1"
    assert "r/a" in text
    assert none == ""


def test_without_an_outbox_it_is_told_where_they_come_from(tmp_path: Path, capsys: Output) -> None:
    assert "no outbox" in told(capsys, "outbox", "list", "--state", tmp_path, code=3)


def test_an_empty_file_holds_nothing(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "outbox.sqlite").touch()

    assert listed(capsys, tmp_path) == {"items": [], "dropped": {}}
    assert told(capsys, "outbox", "received", "--state", tmp_path) == ""
    assert "cannot write" in told(capsys, "outbox", "drop", "x", "--state", tmp_path, code=3)
