"""Questions over HTTP, the description of the service, and its Python client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from cloud_tier.telemetry import answering
from cloud_tier.telemetry.asking import DIMENSIONS
from cloud_tier.telemetry.bounded import Bounds
from cloud_tier.telemetry.http_api import MetricsApi
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.openapi import description
from cloud_tier.telemetry.store import TelemetryStore
from fakes.ports import free_port
from fakes.telemetry import NOW_S, escalated, feedback, item, rollup, row
from runtime.adapters.http_server import serving
from runtime.errors import RequestError, StartError, StoppedError
from tierwise.metrics_client import AsyncMetricsClient, MetricsClient, MetricsError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TelemetryStore]:
    url = f"sqlite:///{tmp_path / 'telemetry.sqlite'}"
    with TelemetryStore(url, wall_s=lambda: NOW_S) as store:
        yield store


@pytest.fixture
async def url(store: TelemetryStore) -> AsyncIterator[str]:
    said = rollup(row(60, label="1"), row(30, label="2", minutes_ago=70), escalated(10))
    await store.apply(item(said))
    await store.apply(feedback(label=3))
    app = web.Application()
    MetricsApi(store.engine, Retention(), wall_s=lambda: NOW_S).add_routes(app)
    async with serving(app, "127.0.0.1", 0) as base:
        yield base


async def get(url: str, path: str, **headers: str) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/api/v1/{path}", headers=headers) as response,
    ):
        said = await response.json() if response.status != 304 else None
        return response.status, said, response.headers


async def test_a_question_is_answered(url: str) -> None:
    status, report, _ = await get(url, "metrics/escalations?by=region,label&where=label!=2")

    assert status == 200
    assert report["by"] == ["region", "label"]
    assert [one["group"] for one in report["rows"]] == [
        {"region": "eu", "label": "1"},
        {"region": "eu", "label": "3"},
    ]
    assert [one["requests"] for one in report["rows"]] == [60, 10]
    assert report["next"] == ""


async def test_who_has_the_answer_is_told_so(url: str) -> None:
    _, _, headers = await get(url, "metrics/cost")

    status, body, _ = await get(url, "metrics/cost", **{"If-None-Match": headers["ETag"]})
    other, _, _ = await get(url, "metrics/cost", **{"If-None-Match": '"x"'})

    assert (status, body, other) == (304, None, 200)


async def test_an_answer_is_given_again_for_a_moment(store: TelemetryStore, url: str) -> None:
    _, before, _ = await get(url, "metrics/cost")
    await store.apply(item(rollup(row(5), first=101)))

    found = [before]
    async with asyncio.timeout(10):
        while found[-1] == before:
            found.append((await get(url, "metrics/cost"))[1])

    assert [one["rows"][0]["requests"] for one in (before, found[-1])] == [100, 105]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("metrics/costs", "did you mean 'cost'"),
        ("metrics/cost?by=modl", "did you mean 'model'"),
        ("metrics/cost?by=model&by=tier", "by is there twice"),
        ("metrics/cost?order=-colour", "choose from group, requests"),
        ("metrics/cost?where=%00=1", "unknown dimension"),
    ],
)
async def test_a_refusal_says_what_to_do(url: str, path: str, wanted: str) -> None:
    status, said, _ = await get(url, path)

    assert (status, said["error"]["code"]) == (400, "bad_request")
    assert wanted in said["error"]["message"]


async def test_who_waited_too_long_is_told_what_to_do(store: TelemetryStore) -> None:
    await store.apply(item(rollup(row(3))))
    app, bounds = web.Application(), Bounds(timeout_s=0.0)
    api = MetricsApi(store.engine, Retention(), bounds=bounds, wall_s=lambda: NOW_S)
    api.add_routes(app)

    async with serving(app, "127.0.0.1", 0) as base:
        status, said, _ = await get(base, "metrics/cost")

    error = said["error"]
    assert (status, error["code"]) == (504, "too_late")
    assert "ask about a shorter time (since)" in error["message"]
    assert "ask again: what was read by now is in memory" in error["message"]


async def test_the_metrics_are_listed(url: str) -> None:
    _, said, _ = await get(url, "metrics")

    assert [one["name"] for one in said["metrics"]] == list(DIMENSIONS)


async def test_more_questions_than_may_wait_are_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_WAITING", 0)

    status, said, headers = await get(url, "metrics/cost")

    assert (status, said["error"]["code"]) == (503, "overloaded")
    assert headers["Retry-After"] == "1"


async def test_whoever_may_not_ask_is_refused(store: TelemetryStore) -> None:
    def check(request: web.Request) -> None:
        if request.headers.get("Authorization") != "Bearer good":
            raise StoppedError("no")

    app = web.Application()
    MetricsApi(store.engine, Retention(), wall_s=lambda: NOW_S, check=check).add_routes(app)
    async with serving(app, "127.0.0.1", 0) as base:
        for path in ("metrics", "metrics/cost", "openapi.json"):
            assert (await get(base, path))[0] == 503
        with pytest.raises(MetricsError, match="no"):
            await AsyncMetricsClient(base, token="bad").cost()
        assert await AsyncMetricsClient(base, token="good").cost() == []


async def test_the_description_is_openapi_and_names_what_is_answered(url: str) -> None:
    _, said, _ = await get(url, "openapi.json")

    OpenAPIV31SpecValidator(said).validate()
    assert said == description()
    assert set(said["paths"]) == {
        "/api/v1/metrics",
        *(f"/api/v1/metrics/{one}" for one in DIMENSIONS),
    }
    for name in DIMENSIONS:
        _, report, _ = await get(url, f"metrics/{name}")
        shape = said["paths"][f"/api/v1/metrics/{name}"]["get"]["responses"]["200"]["content"]
        parts = said["components"]["schemas"]
        page = parts[shape["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]]
        fields = parts[page["properties"]["rows"]["items"]["$ref"].rsplit("/", 1)[1]]["properties"]
        assert set(report) == set(page["properties"])
        assert all(set(one) == set(fields) for one in report["rows"])


async def test_the_client_gives_flat_records(url: str) -> None:
    client = AsyncMetricsClient(url)

    found = await client.escalations(since="12h", by=["region", "hour"], order="group")
    same = await asyncio.to_thread(
        MetricsClient(url).escalations, since=NOW_S - 43_200, by="region,hour", order="group"
    )

    assert [one["requests"] for one in same] == [30, 70]
    assert set(same[0]) > {"region", "hour", "requests", "escalation_rate"}
    assert same == found


async def test_the_client_gets_all_pages_or_as_many_rows_as_wanted(
    store: TelemetryStore, url: str
) -> None:
    await store.apply(item(rollup(*(row(1, version=str(at)) for at in range(30)), first=101)))
    client = AsyncMetricsClient(url)

    assert len(await client.latency(by=["version"], limit=7)) == 7
    assert len(await client.latency(by=["version"])) == 30
    chosen = await client.cost(by=["label"], where={"label": ["1", "2"]})
    assert [one["label"] for one in chosen] == ["1", "2"]


@pytest.mark.parametrize("name", ["accuracy", "agreement", "rollouts", "fleet"])
async def test_every_metric_has_a_method(url: str, name: str) -> None:
    client = AsyncMetricsClient(url)

    records = await getattr(client, name)()
    same = await asyncio.to_thread(getattr(MetricsClient(url), name))

    assert records == same
    assert bool(records) == (name != "agreement")


async def test_the_client_says_what_is_wrong(url: str) -> None:
    async with serving(web.Application(), "127.0.0.1", 0) as stranger:
        with pytest.raises(StartError, match="has no telemetry"):
            await AsyncMetricsClient(stranger).cost()
    with pytest.raises(StartError, match="no answer from the cloud tier"):
        await AsyncMetricsClient(f"http://127.0.0.1:{free_port()}").cost()
    with pytest.raises(RequestError, match="did you mean 'tier'"):
        await AsyncMetricsClient(url).cost(by="teir")
    with pytest.raises(ValueError, match="is no http"):
        MetricsClient("ftp://somewhere")
