"""Detectors, anomaly scorers and embedders as programs over a real broker.

What other systems count as an answer, an empty list of boxes, has to climb here.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest

from fakes.programs import Asker, TierProgram
from fakes.task_models import (
    anomaly_folder,
    detector_folder,
    embedding_folder,
    finder,
    picture,
)
from fakes.waiting import eventually
from runtime.messages import Tier
from tierwise import client
from tierwise.cli import main

pytestmark = pytest.mark.timeout(120)
KINDS = {Tier.EDGE: ("edge", "agent-1"), Tier.REGIONAL: ("gateway", "gateway-1")}
SPOT = {"label": "spot", "score": pytest.approx(0.9), "box": [2.0, 3.0, 3.0, 4.0]}


def _start(hierarchy: Any, folders: dict[Tier, Path]) -> list[TierProgram]:
    hierarchy.broker()
    started = []
    for tier, folder in reversed(folders.items()):
        kind, name = KINDS.get(tier, ("cloud", "cloud-1"))
        flags = [f"model.folder={folder}"]
        if tier is Tier.EDGE and Tier.REGIONAL not in folders and Tier.CLOUD in folders:
            flags += ["upstream_tier=cloud", "region=cloud"]
        started.append(hierarchy.tier(kind, name, *flags))
    return started[::-1]


async def _ask(
    program: TierProgram, x: npt.NDArray[np.float32], *, binary: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of an answer with its result and provenance read, and its outputs."""
    if binary:
        async with aiohttp.ClientSession() as session:
            said = await client.infer(
                session,
                program.url,
                "found",
                {"x": x},
                parameters={"remaining_ms": 2000},
                timeout_s=10,
            )
        parameters: dict[str, Any] = dict(said.parameters)
        outputs = {name: list(one.shape) for name, one in said.outputs.items()}
    else:
        tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.tolist()}
        body = {"inputs": [tensor], "parameters": {"remaining_ms": 2000}}
        url = f"{program.url}/v2/models/found/infer"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            told = await response.json()
            assert response.status == 200, told
        parameters = told["parameters"]
        outputs = {one["name"]: one["shape"] for one in told["outputs"]}
    parameters["result"] = json.loads(parameters["result"])
    parameters["provenance"] = json.loads(parameters["provenance"])
    return parameters, outputs


async def _until_by(
    program: TierProgram, x: npt.NDArray[np.float32], tier: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Asks until this tier answers: those above may not have been seen yet."""
    answers: list[tuple[dict[str, Any], dict[str, Any]]] = []

    async def ask() -> None:
        while not answers or answers[-1][0]["tier"] != tier:
            answers.append(await _ask(program, x))

    task = asyncio.create_task(ask())
    try:
        await eventually(task.done, 30)
        await task
    finally:
        task.cancel()
    return answers[-1]


def _infer(program: TierProgram, x: npt.NDArray[np.float32], capsys: Any) -> str:
    np.savez("one.npz", x=x, boxes=np.full((len(x), 1, 4), np.nan))
    words = ["--url", program.url, "--data", "one.npz", "--index", "0", "--budget-ms", "2000"]
    assert main(["infer", *words]) == 0
    told: str = capsys.readouterr().out
    return told


async def test_an_edge_detector_that_finds_nothing_is_not_believed(
    hierarchy: Any,
    asker: Asker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    blind, sharp = finder(1.0, 0.5), finder(3.0, 0.05)
    edge, gateway, cloud = _start(
        hierarchy,
        {
            Tier.EDGE: detector_folder(tmp_path / "e", Tier.EDGE, blind),
            Tier.REGIONAL: detector_folder(tmp_path / "r", Tier.REGIONAL, blind),
            Tier.CLOUD: detector_folder(tmp_path / "c", Tier.CLOUD, sharp, finder(3.0, 0.06)),
        },
    )
    await asker.ready(edge, gateway, cloud)

    dim, outputs = await _until_by(edge, picture((2, 3, 0.3)), "cloud")
    clear, _ = await _ask(edge, picture((2, 3, 0.95)))
    dark, of_dark = await _ask(edge, picture())
    _, in_binary = await _ask(edge, picture(), binary=True)
    told = await asyncio.to_thread(_infer, edge, picture((2, 3, 0.3)), capsys)

    assert (dim["outcome"], dim["reason"]) == ("answered", "confident")
    assert dim["result"] == {"boxes": [SPOT]}
    assert outputs == {"boxes": [1, 1, 4], "scores": [1, 1]}
    assert [hop["tier"] for hop in dim["provenance"]] == ["edge", "regional", "cloud"]
    assert dim["provenance"][0]["confidence"] == 0.0
    assert (clear["tier"], clear["outcome"]) == ("edge", "answered")
    # All have looked, and there is nothing: that is an answer, of the one at the top.
    assert (dark["tier"], dark["outcome"], dark["result"]) == ("cloud", "answered", {"boxes": []})
    assert of_dark == in_binary == {"boxes": [1, 0, 4], "scores": [1, 0]}
    assert '"label": "spot"' in told
    assert "answered by cloud" in told
    assert "true label" not in told


async def test_without_those_above_nothing_found_is_degraded(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> None:
    folder = detector_folder(tmp_path / "e", Tier.EDGE, finder(1.0, 0.5))
    (edge,) = _start(hierarchy, {Tier.EDGE: folder})
    await asker.ready(edge)

    answer, _ = await _ask(edge, picture())

    assert (answer["outcome"], answer["result"]) == ("degraded", {"boxes": []})


FAR, NEAR = [[3.0, 0.0, 0.0]], [[0.4, 0.0, 0.0]]


@pytest.mark.parametrize("task", ["anomaly", "embedding"])
async def test_scores_and_vectors_climb_when_they_are_unsure(
    hierarchy: Any, asker: Asker, tmp_path: Path, task: str
) -> None:
    folder: Any
    results: Any
    if task == "anomaly":
        folder = anomaly_folder
        weights: tuple[Any, Any] = ([1.0, 0, 0], [10.0, 0, 0])
        sure, unsure = FAR, NEAR
        results = (
            {"score": 3.0, "is_anomalous": True},
            {"score": pytest.approx(4.0), "is_anomalous": True},
        )
    else:
        folder = embedding_folder
        weights = (np.eye(3), np.array([[1.0, 0, 0], [0, 0.01, 0], [0, 0, 1]]))
        sure, unsure = [[3.0, 0.0, 0.1]], [[1.0, 0.9, 0]]
        results = (
            {"nearest": "left", "similarity": pytest.approx(0.999445)},
            {"nearest": "left", "similarity": pytest.approx(0.99996, abs=1e-4)},
        )
    edge, cloud = _start(
        hierarchy,
        {
            Tier.EDGE: folder(tmp_path / "e", Tier.EDGE, weights[0]),
            Tier.CLOUD: folder(tmp_path / "c", Tier.CLOUD, weights[1]),
        },
    )
    await asker.ready(edge, cloud)

    climbed, _ = await _until_by(edge, np.array(unsure, np.float32), "cloud")
    stayed, _ = await _ask(edge, np.array(sure, np.float32))

    assert (climbed["outcome"], climbed["result"]) == ("answered", results[1])
    assert (stayed["tier"], stayed["result"]) == ("edge", results[0])
    assert climbed.get("label_name") == ("left" if task == "embedding" else None)
