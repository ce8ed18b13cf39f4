"""Overrides on real processes over a real broker, from the command line to the answer."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from fakes.programs import Asker

# Promised times are measured: nothing else may run meanwhile.
pytestmark = [pytest.mark.timeout(120), pytest.mark.alone]


async def run(hierarchy: Any, *words: str) -> tuple[int, Any, str]:
    """Exit code, JSON and standard error of ``tierwise override``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tierwise", "override", *words),
        *("--broker", str(hierarchy.address), "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return await process.wait(), json.loads(out) if out else None, err.decode()


async def test_a_ban_is_known_everywhere_within_two_seconds_and_taken_back(
    hierarchy: Any, asker: Asker
) -> None:
    hierarchy.broker()
    agent, gateway, cloud = hierarchy.all_tiers()
    await asker.ready(agent, gateway, cloud)
    before = await asker.answered_by(agent, "cloud")
    label = before["label_name"]

    # It ends with 0 only where all that are online have said within two seconds that they know.
    said = ("--region", "cloud", "--why", "mistaken for bags", "--by", "kim", "--wait", "2")
    code, result, _ = await run(
        hierarchy, "ban", "--label", label, "--for", "1h", "--id", "b1", *said
    )
    banned = await asker.answered_by(agent, "cloud")
    listed_code, listed, _ = await run(hierarchy, "list", "--region", "cloud")
    gone_code, gone, _ = await run(hierarchy, "remove", "b1", *said)
    again_code, _, again = await run(hierarchy, "remove", "b1", *said)
    after = await asker.answered_by(agent, "cloud")

    assert (code, listed_code, gone_code, again_code) == (0, 0, 0, 1)
    assert result["regions"][0]["missing"] == []
    assert {"plant/agent-1", "cloud/cloud-1"} <= set(listed["regions"][0]["online"])
    assert banned["label_name"] != label
    assert "override b1 (bans" in banned["notice"]
    assert {tuple(hop["overrides"]) for hop in banned["provenance"]} == {("b1",)}
    assert [one["id"] for one in listed["regions"][0]["overrides"]] == ["b1"]
    assert gone["regions"][0]["overrides"] == []
    assert again == ""
    assert (after["label_name"], after.get("notice", "")) == (label, "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("pin", "--answer", "Bag", "--for", "1h", "--why", " "), "--why needs a reason"),
        (("pin", "--answer", "Bag", "--for", "soon", "--why", "x"), "no duration"),
        (("pin", "--answer", "Bag", "--for", "90d", "--why", "x"), "between 1s and 31d"),
        (("pin", "--answer", "Bag", "--for", "0s", "--why", "x"), "between 1s and 31d"),
        (
            ("withhold", "--label", "a", "--below", "2", "--for", "1h", "--why", "x"),
            "--below: '2' is no number from 0 to 1",
        ),
        (("tier", "--tier", "moon", "--for", "1h", "--why", "x"), "--tier is one of"),
        (
            ("ban", "--label", "a", "--for", "1h", "--why", "x", "--target", "r"),
            "takes no --target",
        ),
        (("pin", "--answer", "a", "--for", "1h", "--why", "x", "--context", "y"), "KEY=VALUE"),
        (("ban", "--label", "a", "--for", "1h", "--why", "x", "--id", "a/b"), "$.id"),
        (("boost", "--label", "a", "--amount", "0", "--for", "1h", "--why", "x"), "an amount"),
    ],
)
def test_what_is_not_said_clearly_is_refused(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from tierwise.cli import main  # noqa: PLC0415 - as the other commands of this file do

    try:
        code: object = main(["override", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert text in capsys.readouterr().err
