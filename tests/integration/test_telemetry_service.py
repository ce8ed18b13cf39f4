"""Telemetry as a part of the cloud tier: on, off, without its extra, and who may ask."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import Engine, func, select
from structlog.testing import capture_logs

from cloud_tier.operators.access import Door, read_operator_file
from cloud_tier.operators.listener import operators_listening
from cloud_tier.settings import CloudSettings, TelemetrySettings
from cloud_tier.telemetry import http_api, service, tables
from cloud_tier.telemetry import reading as reading_module
from cloud_tier.telemetry.asking import Question
from cloud_tier.telemetry.database import reading
from cloud_tier.telemetry.kept_answers import KeptAnswers
from cloud_tier.telemetry.rows import Report, Row
from cloud_tier.telemetry.service import Telemetry, keeping_telemetry, url_of
from cloud_tier.telemetry.store import TelemetryStore
from fakes.telemetry import NOW_S, item, rollup, row
from fakes.waiting import until
from runtime.adapters.clock import SystemClock
from runtime.common_settings import StateSettings
from runtime.errors import StartError, StorageError
from tierwise.metrics_client import MetricsClient


def settings(folder: Path, **own: Any) -> CloudSettings:
    return CloudSettings(
        cloud="cloud-1",
        state=StateSettings(folder=str(folder)),
        telemetry=TelemetrySettings(**own),
    )


def service_file(folder: Path) -> Path:
    return folder / service.FILE_NAME


def paths(telemetry: Telemetry) -> set[str]:
    app = web.Application()
    telemetry.add_routes(app, Door("t" * 43, SystemClock()))
    return {resource.canonical for resource in app.router.resources()}


async def test_it_is_kept_in_the_state_folder(tmp_path: Path) -> None:
    async with keeping_telemetry(settings(tmp_path / "state"), time.time) as telemetry:
        assert telemetry is not None
        said = item(rollup(row(1)), at_s=time.time())
        assert await telemetry.apply(said) == "stored"
        assert "/api/v1/metrics/{name}" in paths(telemetry)

    assert service_file(tmp_path / "state").is_file()


async def test_short_rows_are_added_up_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FOLD_INTERVAL_S", 0.01)
    async with keeping_telemetry(settings(tmp_path), time.time) as telemetry:
        assert telemetry is not None
        await telemetry.apply(item(rollup(row(1)), at_s=time.time()))

        def num_left() -> int:
            with reading(telemetry.engine) as connection:
                query = select(func.count()).select_from(tables.short_new)
                return int(connection.execute(query).scalar_one())

        async def look() -> int:
            return await asyncio.to_thread(num_left)

        assert await until(look, lambda left: left == 0) == 0


async def test_the_dashboard_shares_answers_with_whoever_asks_over_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def answer(engine: Engine, asked: Question, **more: Any) -> Report[Row]:
        read.append(asked.metric)
        return reading_module.answer(engine, asked, **more)

    monkeypatch.setattr(http_api, "answer", answer)
    # However long the test takes.
    monkeypatch.setattr(KeptAnswers, "is_fresh", lambda *_: True)
    # The same minute for all of them.
    async with keeping_telemetry(settings(tmp_path), lambda: NOW_S) as telemetry:
        assert telemetry is not None
        await telemetry.apply(item(rollup(row(3))))
        words = {"by": "tier"}
        first, second = await asyncio.gather(*(telemetry.ask("cost", words) for _ in range(2)))
        adders = [telemetry.add_routes]
        async with operators_listening(tmp_path, 0, SystemClock(), adders) as url:
            access = read_operator_file(tmp_path / "operator.json")
            assert access is not None
            client = MetricsClient(url, token=access.token)
            over_http = await asyncio.to_thread(client.report, "cost", words)

    assert read == ["cost"]
    assert first == second == over_http
    assert first["rows"][0]["requests"] == 3


async def test_threads_take_turns_often_while_it_is_kept(tmp_path: Path) -> None:
    before_s = sys.getswitchinterval()

    async with keeping_telemetry(settings(tmp_path), time.time):
        meanwhile_s = sys.getswitchinterval()

    assert meanwhile_s < before_s
    assert sys.getswitchinterval() == before_s


async def test_switched_off_nothing_is_kept(tmp_path: Path) -> None:
    async with keeping_telemetry(settings(tmp_path, enabled=False), time.time) as telemetry:
        assert telemetry is None

    assert not service_file(tmp_path).exists()


async def test_without_the_extra_it_says_once_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_NEEDED", ("sqlalchemy", "no_such_module"))

    with capture_logs() as logs:
        async with keeping_telemetry(settings(tmp_path), time.time) as telemetry:
            assert telemetry is None

    (line,) = logs
    assert (line["event"], line["missing"]) == ("telemetry.not_kept", ["no_such_module"])
    assert "tierwise[cloud]" in line["hint"]


async def test_a_url_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="SQLite file or in PostgreSQL"):
        async with keeping_telemetry(settings(tmp_path, url="mysql://x/y"), time.time):
            pass


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match="cannot make the folder"):
        TelemetryStore(url_of("", tmp_path / "file"))


async def test_a_database_that_is_away_does_not(tmp_path: Path) -> None:
    with capture_logs() as logs:
        url = "postgresql://tierwise:secret@127.0.0.1:1/telemetry"
        async with keeping_telemetry(settings(tmp_path, url=url), time.time) as telemetry:
            assert telemetry is not None
            for _ in range(2):
                with pytest.raises(StorageError, match=r"127\.0\.0\.1"):
                    await telemetry.apply(item(rollup(row(1))))

    assert [line["event"] for line in logs] == ["telemetry.failed"]
    assert "secret" not in str(logs)
