"""What the operators' port says of requests, out of real decision logs, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.dashboard import NOW_S, Port, dashboard_port
from fakes.decisions import decision, escalated, write_log, write_log_of_version_1


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    async with dashboard_port(tmp_path) as port:
        yield port


async def test_requests_are_shown_once_and_explained(port: Port) -> None:
    at_s = NOW_S - 10
    write_log(
        port.logs / "camera-1",
        decision("r1", wall_s=at_s, label=1),
        escalated("r2", wall_s=at_s + 1, answered_by="cloud", label=2),
    )
    write_log(
        port.logs / "cloud-1",
        decision("r2", wall_s=at_s + 2, tier="cloud", site="cloud-1", hop=2, answered_by="cloud"),
    )
    said = await port.get("/api/v1/requests")
    found = [(one["request_id"], one["tier"], one["label_name"]) for one in said["requests"]]
    assert found == [("r2", "edge", "c"), ("r1", "edge", "b")]
    for query, num in (("reason=unsure", 1), ("label=1", 1), ("label=x", 0), ("region=south", 0)):
        assert len((await port.get(f"/api/v1/requests?{query}"))["requests"]) == num, query
    status, _ = await port.ask("GET", "/api/v1/requests?nothing=1")
    assert status == 400

    facets = await port.get("/api/v1/requests/facets?last_s=60")
    assert (facets["decisions"], facets["escalated"]) == (3, 1)
    assert {one["value"]: one["count"] for one in facets["facets"]["tier"]} == {
        "edge": 2, "cloud": 1,
    }  # fmt: skip
    story = await port.get("/api/v1/requests/r2")
    assert [one["tier"] for one in story["hops"]] == ["edge", "cloud"]
    assert any("In the end" in line for line in story["ending"])
    status, message = await port.ask("GET", "/api/v1/requests/r3")
    assert (status, "2 decision logs" in message) == (404, True)


async def test_pages_of_requests_hold_each_once(port: Port) -> None:
    write_log(port.logs, *(decision(f"r{one:02}", wall_s=NOW_S - one // 3) for one in range(20)))
    found, cursor = [], ""
    while True:
        said = await port.get(f"/api/v1/requests?limit=3&cursor={cursor}")
        found += [one["request_id"] for one in said["requests"]]
        cursor = said["next"]
        if not cursor:
            break
    assert sorted(found) == [f"r{one:02}" for one in range(20)]


async def test_old_and_damaged_logs_are_named_and_the_others_answer(port: Port) -> None:
    (port.logs / "old").mkdir(parents=True)
    write_log_of_version_1(port.logs / "old", decision("old", wall_s=NOW_S - 5))
    (port.logs / "bad").mkdir()
    (port.logs / "bad" / "decisions.sqlite").write_bytes(b"no database" * 1000)
    said = await port.get("/api/v1/requests")
    assert [one["request_id"] for one in said["requests"]] == ["old"]
    assert "bad" in said["problems"][0]
    assert "bad" in (await port.get("/api/v1/requests/facets"))["problems"][0]
    assert "bad" in (await port.get("/api/v1/drift?last_s=60"))["problems"][0]


async def test_confidences_over_time_show_where_guarantees_were_suspended(port: Port) -> None:
    write_log(
        port.logs,
        *(decision(f"a{one}", wall_s=NOW_S - 50, confidence=0.95) for one in range(60)),
        *(
            decision(f"b{one}", wall_s=NOW_S - 2, confidence=0.25, guarantee="suspended")
            for one in range(60)
        ),
        decision("c", wall_s=NOW_S - 2, confidence=None),
        decision("d", wall_s=NOW_S - 2, confidence=1.0),
    )
    said = await port.get("/api/v1/drift?last_s=60&tier=edge")
    series = said["series"][0]
    assert (series["count"], series["suspended"]) == (121, 60)
    far = [one["distance"] for one in series["pieces"] if one["distance"] is not None]
    assert far == [pytest.approx(0.5, abs=0.02)] * 2
    assert (await port.get("/api/v1/drift?last_s=60&tier=cloud"))["series"] == []
    for last_s in ("1", "99999999"):
        assert (await port.ask("GET", f"/api/v1/drift?last_s={last_s}"))[0] == 400
