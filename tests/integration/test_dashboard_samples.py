"""Requests of all devices at the operators' port: logs of this machine and samples as one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cloud_tier.operators.together import find, page
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.sample_reading import SampleReader
from cloud_tier.telemetry.store import TelemetryStore
from fakes.dashboard import NOW_S, Port, dashboard_port
from fakes.decisions import decision, escalated, write_log
from fakes.samples import climbed, sample
from fakes.telemetry import item, row, source
from runtime.decision_sample import Sample
from runtime.errors import TooLateError
from runtime.ports import DecisionRecord
from runtime.telemetry import Rollup
from tierwise.cli import main

RETENTION = Retention()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TelemetryStore]:
    with TelemetryStore(f"sqlite:///{tmp_path / 't.sqlite'}", wall_s=lambda: NOW_S) as store:
        yield store


@pytest.fixture
def reader(store: TelemetryStore) -> SampleReader:
    return SampleReader(store.engine, RETENTION, wall_s=lambda: NOW_S)


@pytest.fixture
async def port(tmp_path: Path, reader: SampleReader) -> AsyncIterator[Port]:
    async with dashboard_port(tmp_path, reader) as port:
        yield port


async def take(store: TelemetryStore, *some: Sample) -> None:
    """Samples as their tiers would send them, each in a rollup of its own."""
    for one in some:
        place: dict[str, Any] = {"region": one.region, "site": one.site, "tier": one.tier}
        log = uuid4().hex
        rollup = Rollup((source(1, log=log, **place),), (row(1, **place),), samples=(one,))
        await store.apply(item(rollup, at_s=NOW_S, origin=""))


async def climb(store: TelemetryStore, request_id: str, *, site: str = "cam-1") -> None:
    """A request that climbed from a device to the cloud, as three tiers tell it."""
    hops: dict[str, Any] = {"answered_by": "cloud", "seen": "cloud=5:0.99"}
    await take(
        store,
        climbed(request_id, site=site, seen="edge=3:0.4;regional=3:0.5;cloud=5:0.99", label=5),
        climbed(request_id, site="gw-1", tier="regional", hop=1, age_s=4.0, label=5, **hops),
        sample(
            request_id, site="top", region="cloud", tier="cloud", hop=2, age_s=4.5, label=5, **hops
        ),
    )


async def test_a_request_that_no_log_here_has_is_listed_once_and_its_story_is_whole(
    port: Port, store: TelemetryStore
) -> None:
    await climb(store, "far")
    write_log(port.logs, decision("near", wall_s=NOW_S - 1))

    said = await port.get("/api/v1/requests")
    story = await port.get("/api/v1/requests/far")

    assert [(one["request_id"], one["tier"]) for one in said["requests"]] == [
        ("near", "edge"), ("far", "edge"),
    ]  # fmt: skip
    assert (said["sampled"], said["problems"]) == (3, [])
    assert [(one["tier"], one["site"]) for one in story["hops"]] == [
        ("edge", "cam-1"), ("regional", "gw-1"), ("cloud", "top"),
    ]  # fmt: skip
    assert story["ending"][0].startswith("In the end: f")
    assert "notes" not in story


async def test_the_log_of_a_tier_is_believed_before_its_sample(
    port: Port, store: TelemetryStore
) -> None:
    await climb(store, "both")
    write_log(
        port.logs,
        decision(
            "both", wall_s=NOW_S - 4.4, tier="cloud", site="top", region="cloud", hop=2,
            model="of the log", answered_by="cloud",
        ),
    )  # fmt: skip

    listed = await port.get("/api/v1/requests")
    story = await port.get("/api/v1/requests/both")

    assert [(one["request_id"], one["tier"]) for one in listed["requests"]] == [("both", "edge")]
    assert [one["model"] for one in story["hops"]] == ["fashion", "fashion", "of the log"]


async def test_two_devices_that_were_asked_under_one_id_have_a_story_each(
    port: Port, store: TelemetryStore
) -> None:
    await climb(store, "1")
    await take(store, sample("1", site="cam-2", age_s=1.0))

    listed = await port.get("/api/v1/requests")
    newest = await port.get("/api/v1/requests/1")
    of_one = await port.get("/api/v1/requests/1?site=cam-1")

    assert [one["site"] for one in listed["requests"]] == ["cam-2", "cam-1"]
    assert newest["hops"][0]["site"] == "cam-2"
    assert of_one["hops"][0]["site"] == "cam-1"
    assert any("cam-2 had a request with this id" in note for note in of_one["notes"])
    assert (await port.ask("GET", "/api/v1/requests/1?nothing=1"))[0] == 400


async def test_counts_are_of_all_decisions_where_telemetry_has_any(
    port: Port, store: TelemetryStore
) -> None:
    write_log(port.logs, *(decision(f"r{one}", wall_s=NOW_S - 5) for one in range(3)))
    before = await port.get("/api/v1/requests/facets?last_s=600")
    await store.apply(item(Rollup((source(500),), (row(500),)), at_s=NOW_S - 90))

    after = await port.get("/api/v1/requests/facets?last_s=600")
    none = await port.get("/api/v1/requests/facets?last_s=600&region=nowhere")

    assert (before["from"], before["decisions"]) == ("logs", 3)
    assert (after["from"], after["decisions"]) == ("telemetry", 500)
    assert after["facets"]["label"] == [{"value": "3", "count": 500, "name": "d"}]
    assert (none["from"], none["decisions"]) == ("logs", 0)


async def test_a_database_that_is_away_is_named_and_the_logs_still_answer(
    port: Port, store: TelemetryStore, tmp_path: Path
) -> None:
    write_log(port.logs, decision("near", wall_s=NOW_S - 1))
    store.close()
    (tmp_path / "t.sqlite").unlink()

    listed = await port.get("/api/v1/requests")
    counted = await port.get("/api/v1/requests/facets?last_s=60")
    story = await port.get("/api/v1/requests/near")

    assert ([one["request_id"] for one in listed["requests"]], listed["sampled"]) == (
        ["near"],
        None,
    )
    assert "samples of other tiers" in listed["problems"][0]
    assert (counted["from"], counted["decisions"]) == ("logs", 1)
    assert "no such table" in counted["problems"][0]
    assert any("cannot be read now" in note for note in story["notes"])


async def test_what_nobody_has_is_said_to_be_sought_in_both(port: Port) -> None:
    status, message = await port.ask("GET", "/api/v1/requests/none")

    assert status == 404
    assert "among the samples of all tiers" in message


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_page_by_page_every_request_is_there_once(
    store: TelemetryStore, reader: SampleReader, tmp_path: Path, limit: int
) -> None:
    for number in range(12):
        await climb(store, f"c{number:02}")
    await take(store, *(sample(f"s{one}", age_s=4.0 + one / 7) for one in range(10)))
    path = write_log(
        tmp_path,
        *(
            escalated(
                f"c{one:02}", wall_s=NOW_S - 4.2, tier="cloud", site="top", region="cloud", hop=2
            )
            for one in range(12)
        ),
        *(decision(f"l{one}", wall_s=NOW_S - 3 - one) for one in range(9)),
    )

    found, after, num_pages = list[str](), None, 0
    while num_pages == 0 or after is not None:
        part = page([path], reader, {}, after, limit)
        found += [one["request_id"] for one in part.rows]
        assert len(part.rows) <= limit
        after, num_pages = part.after, num_pages + 1

    wanted = [f"c{one:02}" for one in range(12)] + [f"s{one}" for one in range(10)]
    assert sorted(found) == sorted(wanted + [f"l{one}" for one in range(9)])
    assert find([path], None, "c01").records[0].tier == "cloud"


@pytest.mark.usefixtures("port")
async def test_explain_asks_the_cloud_for_what_no_log_here_has(
    store: TelemetryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await climb(store, "far/away")
    write_log(tmp_path / "here", decision("near"))
    words = ["--state", str(tmp_path / "here"), "--operator", str(tmp_path / "operator.json")]

    async def explain(*more: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["explain", *more])
        return code, *capsys.readouterr()

    near = await explain("near", *words)
    far = await explain("far/away", *words)
    as_json = await explain("far/away", *words, "--json")
    nowhere = await explain("nowhere", *words)
    latest = await explain("latest", "--state", str(tmp_path / "none"), *words[2:])
    no_file = await explain("far/away", *words[:2], "--operator", str(tmp_path / "no.json"))

    assert (near[0], far[0]) == (0, 0)
    assert "camera-1" in near[1]
    assert all(name in far[1] for name in ("cam-1", "gw-1", "top", "In the end: f"))
    story = json.loads(as_json[1])
    assert [one["site"] for one in story["tiers"]] == ["cam-1", "gw-1", "top"]
    assert "paragraphs" not in story
    assert (nowhere[0], "among the samples" in nowhere[2]) == (1, True)
    assert latest == far
    assert (no_file[0], "there is no" in no_file[2]) == (3, True)


@pytest.mark.usefixtures("port")
async def test_without_logs_and_before_the_first_request_there_is_no_latest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none, file = str(tmp_path / "none"), str(tmp_path / "operator.json")

    code = await asyncio.to_thread(main, ["explain", "latest", "--state", none, "--operator", file])

    assert code == 3
    assert "of a request yet" in capsys.readouterr().err


def test_explain_without_a_cloud_says_what_the_logs_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIERWISE_OPERATOR", raising=False)
    write_log(tmp_path / "here", decision("near"))
    gone = tmp_path / "operator.json"
    gone.write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "t" * 43}))
    gone.chmod(0o600)

    alone = main(["explain", "far", "--state", "here"])
    said_alone = capsys.readouterr().err
    away = main(["explain", "far", "--state", "here", "--operator", str(gone)])
    said_away = capsys.readouterr().err

    assert (alone, away) == (3, 3)
    assert "the newest there are near" in said_alone
    assert "operator.json" not in said_alone
    assert "the newest there are near" in said_away
    assert "no answer from the cloud tier" in said_away


def test_a_log_tells_its_story_also_where_samples_take_too_long(
    tmp_path: Path, store: TelemetryStore
) -> None:
    class Late(SampleReader):
        def records(self, request_id: str) -> list[DecisionRecord]:
            raise TooLateError(f"{request_id} took longer than 10 s")

    log = write_log(tmp_path / "gw-1", decision("r1"))

    found = find([log], Late(store.engine, RETENTION, wall_s=lambda: NOW_S), "r1")

    assert [one.request_id for one in found.records] == ["r1"]
    assert found.notes == (
        "Note: samples of other tiers cannot be read now: r1 took longer than 10 s",
    )
