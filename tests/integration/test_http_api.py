"""The Open Inference Protocol over HTTP: its neutral client works, bad input gets an error."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from edge_agent.agent import Agent
from model_zoo.catalog import bundled_model, bundled_pictures
from runtime.adapters.artifacts import open_model
from runtime.adapters.engines import load_members
from runtime.adapters.http_server import operations_app, serving
from runtime.adapters.metrics import TierMetrics
from runtime.codec import HTTP_HEADER_LENGTH, encode_request
from runtime.errors import StartError

T = TypeVar("T")
PICTURES = bundled_pictures("test").pictures[:4].astype(np.float32) / 255
INFER = "/v2/models/fashion/infer"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def _with_triton(url: str, use: Callable[[triton.InferenceServerClient], T]) -> T:
    """Runs the blocking client in a thread; the agent answers on this loop."""

    def run() -> T:
        client = triton.InferenceServerClient(url.removeprefix("http://"))
        try:
            return use(client)
        finally:
            client.close()

    return await asyncio.to_thread(run)


def _picture_input(*, is_binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("image", list(PICTURES.shape), "FP32")
    tensor.set_data_from_numpy(PICTURES, binary_data=is_binary)
    return tensor


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
async def test_the_neutral_client_gets_the_numbers_of_the_engine(
    agent_url: str, binary_in: bool, binary_out: bool | None
) -> None:
    (backend,) = load_members(open_model(bundled_model("edge")))
    outputs = (
        None
        if binary_out is None
        else [triton.InferRequestedOutput("logits", binary_data=binary_out)]
    )

    def use(client: triton.InferenceServerClient) -> Any:
        return client.infer(
            "fashion",
            [_picture_input(is_binary=binary_in)],
            outputs=outputs,
            request_id="from-triton",
            parameters={"residency": "device"},
        )

    result = await _with_triton(agent_url, use)

    expected = backend.run({"image": PICTURES})["logits"]
    response = result.get_response()
    assert np.allclose(result.as_numpy("logits"), expected, rtol=0, atol=1e-6)
    assert response["id"] == "from-triton"
    assert response["parameters"]["tier"] == "edge"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_a_compressed_request_is_read(agent_url: str, algorithm: str) -> None:
    def use(client: triton.InferenceServerClient) -> Any:
        return client.infer("fashion", [_picture_input()], request_compression_algorithm=algorithm)

    result = await _with_triton(agent_url, use)

    assert result.as_numpy("logits").shape == (4, 10)


async def test_the_neutral_client_can_ask_all_about_the_server(agent_url: str) -> None:
    def use(client: triton.InferenceServerClient) -> list[Any]:
        version = client.get_model_metadata("fashion")["versions"][0]
        return [
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready("fashion"),
            client.is_model_ready("fashion", version),
            client.is_model_ready("plants"),
            client.is_model_ready("fashion", "no-such"),
            client.get_server_metadata()["name"],
            client.get_model_metadata("fashion")["inputs"],
            client.get_model_config("fashion")["output"],
            [entry["name"] for entry in client.get_model_repository_index()],
        ]

    told = await _with_triton(agent_url, use)

    assert told[:6] == [True, True, True, True, False, False]
    assert told[6:] == [
        "tierwise",
        [{"name": "image", "datatype": "FP32", "shape": [-1, 28, 28]}],
        [{"name": "logits", "data_type": "TYPE_FP32", "dims": [10]}],
        ["fashion"],
    ]


async def test_the_neutral_client_is_told_what_is_wrong(agent_url: str) -> None:
    wrong = triton.InferInput("picture", [1, 28, 28], "FP32")
    wrong.set_data_from_numpy(PICTURES[:1])

    with pytest.raises(InferenceServerException, match=r"takes .*image"):
        await _with_triton(agent_url, lambda client: client.infer("fashion", [wrong]))


def _json_request(**changes: Any) -> dict[str, Any]:
    tensor = {
        "name": "image",
        "shape": [1, 28, 28],
        "datatype": "FP32",
        "data": PICTURES[0].ravel().tolist(),
    }
    return {"inputs": [tensor], "parameters": {"residency": "device"}, **changes}


@pytest.mark.parametrize(
    ("body", "headers", "expected", "part"),
    [
        (b"", {}, 400, "not a request"),
        (b"{", {}, 400, "not a request"),
        (b"{}", {HTTP_HEADER_LENGTH: "3"}, 400, "beyond the body"),
        (b"{}", {HTTP_HEADER_LENGTH: "-1"}, 400, "no number"),
        (b"[" * 5000, {}, 400, "not a request"),
        (b"x" * 100_001, {}, 413, "limit"),
        (json.dumps(_json_request(parameters={"remaining_ms": 0})), {}, 400, "budget"),
        (json.dumps(_json_request(parameters={"remaining_ms": -3})), {}, 400, "budget"),
        (json.dumps(_json_request(parameters={"remaining_ms": "soon"})), {}, 400, "budget"),
        (json.dumps(_json_request(parameters={"remaining_ms": True})), {}, 400, "budget"),
        (json.dumps(_json_request(parameters={"remaining_ms": 10**400})), {}, 400, "budget"),
        (json.dumps(_json_request(parameters={"timeout": 10**400})), {}, 400, "budget"),
        (json.dumps(_json_request(parameters={"priority": -1})), {}, 400, "priority"),
        (json.dumps(_json_request(parameters={"priority": True})), {}, 400, "priority"),
        (json.dumps(_json_request(parameters={"residency": "moon"})), {}, 400, "residency"),
        (json.dumps(_json_request(parameters={"explain": "yes"})), {}, 400, "true or false"),
        (json.dumps(_json_request(parameters={"explain": 1})), {}, 400, "true or false"),
        (json.dumps(_json_request(outputs=[{"name": "labels"}])), {}, 400, "logits"),
        (json.dumps(_json_request(id="x" * 999)), {}, 400, "id"),
    ],
)
async def test_bad_input_gets_a_status_and_a_reason(
    agent_url: str,
    http: aiohttp.ClientSession,
    body: bytes | str,
    headers: dict[str, str],
    expected: int,
    part: str,
) -> None:
    async with http.post(agent_url + INFER, data=body, headers=headers) as response:
        said = await response.json()

    assert response.status == expected
    assert part in said["error"]


async def test_nan_pixels_are_refused(agent_url: str, http: aiohttp.ClientSession) -> None:
    body, length = encode_request({"image": np.full((1, 28, 28), np.nan, np.float32)})

    async with http.post(
        agent_url + INFER, data=body, headers={HTTP_HEADER_LENGTH: str(length)}
    ) as response:
        said = await response.json()

    assert (response.status, "NaN" in said["error"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/plants/infer", 404),
        ("POST", "/v2/models/fashion/versions/none/infer", 404),
        ("GET", "/v2/models/plants", 404),
        ("GET", "/nowhere", 404),
        ("GET", INFER, 405),
    ],
)
async def test_an_unknown_place_is_told_in_the_protocol_s_form(
    agent_url: str, http: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with http.request(method, agent_url + path) as response:
        said = await response.json()

    assert response.status == status
    assert said["error"]


async def test_a_json_request_is_answered_in_json_with_its_provenance(
    agent_url: str, http: aiohttp.ClientSession
) -> None:
    async with http.post(agent_url + INFER, json=_json_request()) as response:
        said = await response.json()

    assert response.status == 200
    assert len(said["outputs"][0]["data"]) == 10
    assert said["parameters"]["outcome"] in ("answered", "degraded")
    assert json.loads(said["parameters"]["provenance"])[0]["tier"] == "edge"


async def test_an_answer_explains_itself_when_it_is_asked_to(
    agent_url: str, http: aiohttp.ClientSession
) -> None:
    told = []
    for explain in (True, False):
        parameters = {"residency": "device", "explain": explain}
        async with http.post(agent_url + INFER, json=_json_request(parameters=parameters)) as reply:
            told.append((await reply.json())["parameters"])

    asked, unasked = told
    story = json.loads(asked["explanation"])
    assert story["tiers"][0]["words"][0].startswith("edge (agent-1, fashion ")
    assert story["outcome"] == asked["outcome"]
    assert "explanation" not in unasked


async def test_what_passes_between_tiers_is_not_a_caller_s_to_say(
    agent_url: str, http: aiohttp.ClientSession
) -> None:
    said = {"route": "cloud", "gear": "0123456789ab/g", "earlier": "edge=1"}
    answers = []
    for parameters in ({"residency": "device"}, {"residency": "device", **said}):
        async with http.post(agent_url + INFER, json=_json_request(parameters=parameters)) as reply:
            answers.append((await reply.json())["parameters"])

    plain, hostile = answers
    assert plain["tier"] == hostile["tier"] == "edge"
    assert plain["guarantee"] == hostile["guarantee"]


@pytest.mark.parametrize("stated_us", [10_000_001, 10_000_001.0])
async def test_a_timeout_in_microseconds_counts_as_the_budget(
    agent_url: str, http: aiohttp.ClientSession, stated_us: float
) -> None:
    request = _json_request(parameters={"timeout": stated_us})

    async with http.post(agent_url + INFER, json=request) as response:
        said = await response.json()

    assert "10000 ms" in said["error"]


async def test_a_gzip_bomb_stops_at_the_limit(agent_url: str, http: aiohttp.ClientSession) -> None:
    bomb = gzip.compress(b" " * 5_000_000)

    async with http.post(
        agent_url + INFER, data=bomb, headers={"Content-Encoding": "gzip"}
    ) as response:
        assert response.status == 413


async def test_a_body_that_is_not_as_compressed_as_it_says_is_malformed(
    agent_url: str, http: aiohttp.ClientSession
) -> None:
    async with http.post(
        agent_url + INFER, data=b"{}", headers={"Content-Encoding": "gzip"}
    ) as response:
        said = await response.json()

    assert (response.status, "cannot be read" in said["error"]) == (400, True)


async def test_metrics_are_served(
    agent: Agent, agent_url: str, http: aiohttp.ClientSession
) -> None:
    await agent.infer({"image": PICTURES[:1]})

    async with http.get(f"{agent_url}/metrics") as response:
        text = await response.text()

    assert "tierwise_edge_answers_total{" in text


async def test_a_port_in_use_says_so(agent_url: str) -> None:
    port = int(agent_url.rpartition(":")[2])
    app = operations_app(TierMetrics("edge"), lambda: True)

    with pytest.raises(StartError, match=f"{port}.*another port"):
        async with serving(app, "127.0.0.1", port):
            raise AssertionError("the port was taken")


async def test_a_tier_that_is_not_ready_says_so(http: aiohttp.ClientSession) -> None:
    app = operations_app(TierMetrics("cloud"), lambda: False)

    async with (
        serving(app, "127.0.0.1", 0) as base,
        http.get(f"{base}/v2/health/ready") as response,
    ):
        assert response.status == 503
