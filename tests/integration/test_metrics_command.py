"""``tierwise metrics`` on a database, over HTTP and on decision logs; ``tierwise store``."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.operators.listener import operators_listening
from cloud_tier.telemetry.http_api import MetricsApi
from cloud_tier.telemetry.limits import Retention
from cloud_tier.telemetry.store import TelemetryStore
from fakes.decisions import decision, escalated, write_log
from fakes.telemetry import audit, feedback, item, rollup, row
from fakes.telemetry import escalated as climbed
from runtime.adapters.clock import SystemClock
from tierwise.cli import main

pytestmark = pytest.mark.usefixtures("operator_file")

Output = pytest.CaptureFixture[str]


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "telemetry.sqlite"
    now_s = time.time()
    said = rollup(row(60), row(10, minutes_ago=90, version="2"), climbed(30), audits=(audit(),))
    with TelemetryStore(f"sqlite:///{path}") as store:
        assert store.submit(item(said, at_s=now_s - 60)).result(10) == "stored"
        assert store.submit(feedback(label=3, at_s=now_s)).result(10) == "stored"
    return str(path)


def said(capsys: Output, *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_database_is_asked_itself(capsys: Output, store: str) -> None:
    assert main(["metrics", "escalations", "--store", store, "--by", "tier,version"]) == 0

    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["TIER", "VERSION", "REQUESTS", "ANSWERED", "HERE"]
    assert [one.split()[:6] for one in rows] == [
        ["edge", "1", "90", "60", "30", "33.3%"],
        ["edge", "2", "10", "10", "0", "0.0%"],
    ]


@pytest.mark.parametrize(
    "metric",
    ["escalations", "latency", "accuracy", "cost", "agreement", "rollouts", "fleet"],
)
def test_every_metric_is_a_table_json_and_csv(capsys: Output, store: str, metric: str) -> None:
    assert main(["metrics", metric, "--store", store]) == 0
    table = capsys.readouterr().out.splitlines()
    result = said(capsys, "metrics", metric, "--store", store)
    assert main(["metrics", metric, "--store", f"sqlite:///{store}", "--csv"]) == 0
    records = list(csv.DictReader(capsys.readouterr().out.splitlines()))

    assert len(table) - 1 == len(result["rows"]) == len(records) > 0
    assert set(result["by"]) < set(result["rows"][0])
    assert list(records[0]) == list(result["rows"][0])


def test_more_rows_than_wanted_are_said(capsys: Output, store: str) -> None:
    words = ["metrics", "cost", "--store", store, "--by", "version", "--limit", "1"]

    assert main(words) == 0

    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "there are more than 1 rows" in printed.err


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("escalations", ("--by", "version")),
        ("latency", ("--by", "hour,version", "--value", "p50_ms")),
        ("rollouts", ()),
        ("accuracy", ("--by", "policy")),
    ],
)
def test_a_picture(
    capsys: Output, store: str, tmp_path: Path, metric: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "picture.png"

    assert main(["metrics", metric, "--store", store, *words, "--plot", str(path)]) == 0

    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"written: {path}" in capsys.readouterr().err


def test_a_picture_of_no_number_is_refused(capsys: Output, store: str, tmp_path: Path) -> None:
    words = ["metrics", "cost", "--store", store, "--plot", str(tmp_path / "x.png")]

    assert main([*words, "--value", "colour"]) == 2
    assert "is none of requests, escalated" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "no" / "x.png")]) == 3
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "wanted"),
    [
        (["--store", "STORE", "--by", "rgion"], 2, "did you mean 'region'"),
        (["--store", "STORE", "--since", "1y"], 2, "write 90s, 15m"),
        (["--store", "STORE", "--limit", "0"], 2, "--limit is a whole number"),
        (["--store", "nowhere.sqlite"], 3, "there is no file"),
        (["--store", "mysql://localhost/x"], 3, "SQLite file or in PostgreSQL"),
        (["--store", "x://"], 3, "telemetry"),
        (["--url", "http://127.0.0.1:1"], 3, "no answer from the cloud tier"),
        (["--url", "ftp://x"], 2, "is no http:// or https:// URL"),
        (["--operator", "nowhere"], 3, "there is no nowhere"),
        (["--state", "FOLDER", "--where", "tier=edge"], 2, "--where is for the cloud tier"),
        (["--state", "FOLDER", "--by", "label"], 2, "cannot group by 'label'"),
        (["--state", "FOLDER", "--since", "1y"], 2, "is no duration"),
    ],
)
def test_what_cannot_be_asked_says_why(
    capsys: Output, store: str, tmp_path: Path, words: list[str], code: int, wanted: str
) -> None:
    names = {"STORE": store, "FOLDER": str(tmp_path)}

    assert main(["metrics", "latency", *(names.get(word, word) for word in words)]) == code

    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [("cost", "send requests"), ("accuracy", "send feedback"), ("agreement", "audit answers")],
)
def test_an_empty_answer_says_what_to_do(
    capsys: Output, store: str, metric: str, wanted: str
) -> None:
    assert main(["metrics", metric, "--store", store, "--where", "site=nowhere"]) == 0

    printed = capsys.readouterr()
    assert printed.out == ""
    assert wanted in printed.err
    assert "--state" not in printed.err, "decision logs do not answer this"


def test_decision_logs_are_asked_for_latencies(capsys: Output, tmp_path: Path) -> None:
    write_log(
        tmp_path / "edge",
        *(decision(f"r{at}", latency_ms=float(at), budget_ms=90.0) for at in range(1, 101)),
        escalated("x", latency_ms=500.0),
    )
    write_log(tmp_path / "other", decision("y", model="zebra"))
    folders = [str(tmp_path / "edge"), str(tmp_path / "other")]

    result = said(capsys, "metrics", "latency", "--state", *folders, "--by", "model,version")

    fashion, zebra = result["rows"]
    assert (fashion["model"], zebra["model"]) == ("fashion", "zebra")
    assert (fashion["requests"], fashion["late"]) == (101, 10)
    assert (fashion["p50_ms"], fashion["p90_ms"], fashion["p999_ms"]) == (51, 91, 500)
    assert fashion["late_share"] == pytest.approx(10 / 101)


async def test_the_cloud_is_asked_with_its_token(
    capsys: Output, store: str, tmp_path: Path
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with TelemetryStore(f"sqlite:///{store}") as opened:

        def add_routes(app: web.Application, door: Door) -> None:
            MetricsApi(opened.engine, Retention(), check=door.check).add_routes(app)

        async with operators_listening(tmp_path, 0, SystemClock(), [add_routes]):
            words = ["metrics", "fleet", "--operator", str(tmp_path / "operator.json")]
            assert await asyncio.to_thread(main, words) == 0

    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["REGION", "SITE", "TIERS", "VERSIONS", "RETIRED"]
    assert line.split()[:6] == ["eu", "cam-1", "edge", "1", "2", "no"]


def test_the_tables_are_brought_to_this_version(capsys: Output, tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    path.touch()

    assert main(["store", "status", "--store", str(path)]) == 1
    assert "revision none; this version" in capsys.readouterr().out
    assert main(["metrics", "cost", "--store", str(path)]) == 3
    assert "store migrate" in capsys.readouterr().err
    result = said(capsys, "store", "migrate", "--store", str(path))
    assert result == {"before": "", "revision": result["wanted"], "wanted": result["wanted"]}
    assert main(["store", "status", "--store", str(path)]) == 0
