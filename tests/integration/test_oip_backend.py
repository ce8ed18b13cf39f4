"""A member that is somebody's server: real HTTP, and every way in which it can go wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
from aiohttp import web

from cloud_tier.publishing import prepare
from fakes.models import INPUTS, LABELS, OUTPUTS, WEIGHTS, manifest_of
from fakes.oip_members import (
    EXAMPLE,
    LOGITS,
    answer,
    closing_members,
    manifest,
    opened,
    same,
    saying,
)
from fakes.oip_servers import METADATA, agent_server, odd_server
from fakes.ports import free_port
from model_zoo.catalog import bundled_model, bundled_pictures
from runtime.adapters.artifacts import open_model, read_manifest, write_model
from runtime.adapters.clock import SystemClock
from runtime.adapters.engines import load_members
from runtime.adapters.model_folders import read_release
from runtime.adapters.model_process import ProcessBackend, ProcessOptions, start_members
from runtime.adapters.oip_backend import OipBackend
from runtime.adapters.oip_http import HttpServer
from runtime.codec import (
    BINARY_OUTPUT,
    HTTP_HEADER_LENGTH,
    decode_request,
    encode_response,
    parse_header_length,
)
from runtime.common_settings import ModelSettings
from runtime.deadline import Deadline
from runtime.errors import ArtifactError, BackendError, LeftOutError
from runtime.exchange.loading import load_model
from runtime.manifest import Member, Quantization
from runtime.messages import Residency, Tensors, TensorSpec, Tier


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with closing_members():
        yield


def test_our_own_agent_is_a_server_like_any_other(tmp_path: Path) -> None:
    pictures = bundled_pictures("test").pictures[:5].astype(np.float32) / np.float32(255)
    folder = bundled_model("edge")
    (local,) = load_members(open_model(folder))
    with agent_server(folder, tmp_path) as url:
        member = Member("far", url=f"{url}/", model="fashion", version="2")
        backend = OipBackend(member, read_manifest(folder), run_timeout_ms=5000)
        outputs = backend.run({"image": pictures})["logits"]
        backend.close()

    same(outputs, local.run({"image": pictures})["logits"], atol=1e-6)
    assert backend.report.taken == ("server",)
    assert backend.report.engine.startswith("oip tierwise")
    assert backend._is_binary


@pytest.mark.parametrize("extensions", [(), ("binary_tensor_data",)])
def test_the_form_is_what_the_server_says_it_reads(extensions: tuple[str, ...]) -> None:
    forms = set[bool]()

    async def look(request: web.Request) -> web.Response:
        forms.add(HTTP_HEADER_LENGTH in request.headers)
        return await answer(request)

    with odd_server(look, extensions=extensions) as url:
        same(opened(url).run({"x": EXAMPLE})["logits"], LOGITS)

    assert forms == {bool(extensions)}


@pytest.mark.parametrize("refuses_binary", [True, False])
def test_a_form_that_is_refused_is_changed_once(*, refuses_binary: bool) -> None:
    """MLServer refuses binary bodies, and says nothing of extensions; others are the reverse."""
    refused: list[int] = []

    async def pick(request: web.Request) -> web.Response:
        if (HTTP_HEADER_LENGTH in request.headers) == refuses_binary:
            refused.append(1)
            return web.json_response({"error": "Unprocessable"}, status=422)
        return await answer(request)

    with odd_server(pick, extensions=("binary_tensor_data",) if refuses_binary else ()) as url:
        backend = opened(url)
        for _ in range(3):
            same(backend.run({"x": EXAMPLE})["logits"], LOGITS)

    assert len(refused) == 1


def test_a_connection_is_used_again_and_made_anew_when_the_server_has_ended_it() -> None:
    peers: list[Any] = []

    async def count(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        made = await answer(request)
        if len(peers) == 4:
            made.force_close()
        return made

    with odd_server(count) as url:
        backend = opened(url)
        for _ in range(5):
            backend.run({"x": EXAMPLE})

    assert len(peers) == 7
    assert len(set(peers)) == 2


def test_a_connection_that_died_while_idle_is_no_failure() -> None:
    with odd_server(answer) as url:
        backend = opened(url)
        connection: Any = backend._server._mine.connection
        connection._socket._inner.shutdown(socket.SHUT_RDWR)

        same(backend.run({"x": EXAMPLE})["logits"], LOGITS)


def test_a_server_that_is_away_at_the_start_is_asked_again() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with structlog.testing.capture_logs() as logs:
        backend = opened(url)

    assert [one["event"] for one in logs] == ["member.away"]
    assert (backend.inputs, backend.outputs) == (INPUTS, OUTPUTS)
    with pytest.raises(BackendError, match=r"cannot be asked: .*look whether it runs"):
        backend.run({"x": EXAMPLE})
    with odd_server(answer) as there:
        backend._server = HttpServer(there)  # as if it had been started there
        same(backend.run({"x": EXAMPLE})["logits"], LOGITS)


@pytest.mark.parametrize(
    "there",
    [
        {"inputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]},
        {"inputs": [{"name": "x", "datatype": "INT64", "shape": [-1, 3]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3]}]},
        {"outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]},
    ],
    ids=["name", "type", "size", "batch", "output"],
)
def test_a_server_with_another_model_is_refused_at_the_start(there: dict[str, Any]) -> None:
    with (
        odd_server(answer, metadata=METADATA | there) as url,
        pytest.raises(ArtifactError, match="the manifest promises the"),
    ):
        opened(url)


@pytest.mark.parametrize(
    "there",
    [
        {"inputs": [], "outputs": []},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}]},
        {"outputs": [METADATA["outputs"][0], {"name": "more", "datatype": "BYTES", "shape": []}]},
    ],
    ids=["nothing said", "any size", "more outputs"],
)
def test_what_servers_leave_open_is_no_difference(there: dict[str, Any]) -> None:
    with odd_server(answer, metadata=METADATA | there) as url:
        same(opened(url).run({"x": EXAMPLE})["logits"], LOGITS)


def test_integers_on_the_server_are_floats_for_callers() -> None:
    steps = Quantization("INT8", 0.5, 1)
    spec = {"name": "x", "datatype": "INT8", "shape": [-1, 3]}

    async def integers(request: web.Request) -> web.Response:
        raw = await request.read()
        length = parse_header_length(request.headers.get(HTTP_HEADER_LENGTH, ""), len(raw))
        found: Any = decode_request(raw, length).inputs["x"]
        assert found.dtype == np.int8
        body, size = encode_response(
            {"logits": ((found - 1) * np.float32(0.5)) @ WEIGHTS}, model_name="tiny"
        )
        return web.Response(body=body, headers={HTTP_HEADER_LENGTH: str(size)})

    with odd_server(integers, metadata=METADATA | {"inputs": [spec]}) as url:
        backend = opened(url, quantization={"x": steps})
        same(backend.run({"x": EXAMPLE})["logits"], LOGITS)


def test_nan_goes_to_servers_in_raw_bytes_only() -> None:
    inputs: Tensors = {"x": np.full((1, 3), np.nan, np.float32)}

    with (
        odd_server(answer, extensions=()) as url,
        pytest.raises(BackendError, match=r"cannot take this: .*NaN"),
    ):
        opened(url).run(inputs)


def test_a_request_in_json_says_nothing_of_raw_outputs() -> None:
    asked: list[Any] = []

    async def look(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return await answer(request)

    with odd_server(look, extensions=()) as url:
        opened(url).run({"x": EXAMPLE})

    assert BINARY_OUTPUT not in asked[-1].get("parameters", {})
    assert asked[-1]["outputs"] == [{"name": "logits"}]


def test_a_closed_server_is_not_asked() -> None:
    with odd_server(answer) as url:
        server = HttpServer(url)
        server.close()
        server.close()

        with pytest.raises(BackendError, match="is closed"):
            server.ask("/v2", until_s=float("inf"), max_bytes=1000)


async def test_a_tier_with_a_server_alone_answers_through_it(tmp_path: Path) -> None:
    with odd_server(answer) as url:
        write_model(tmp_path, manifest(url), {})
        model = await load_model(
            ModelSettings(folder=str(tmp_path), run_timeout_ms=2000), Tier.EDGE, SystemClock()
        )
        deadline = Deadline.after(SystemClock().monotonic_s(), 5000)

        result = await model.infer({"x": EXAMPLE}, deadline, Residency.CLOUD)

        same(result.outputs["logits"], LOGITS)
        # What may not leave the device, or was not said to be free to, is not sent.
        for residency in (Residency.DEVICE, Residency.REGION):
            with pytest.raises(LeftOutError):
                await model.infer({"x": EXAMPLE}, deadline, residency)
        await asyncio.to_thread(model.close)


async def test_a_payload_that_must_stay_is_answered_by_the_members_that_are_here(
    tmp_path: Path,
) -> None:
    from fakes.models import linear_model  # noqa: PLC0415

    asked: list[int] = []

    async def count(request: web.Request) -> web.Response:
        asked.append(1)
        return await answer(request)

    files = {"near.onnx": linear_model()}
    with odd_server(count) as url:
        members = (
            Member("near", "near.onnx"),
            Member("far", url=url, model="tiny", residency=Residency.REGION),
        )
        write_model(tmp_path, manifest_of(files, members=members), files)
        settings = ModelSettings(folder=str(tmp_path), run_timeout_ms=2000)
        model = await load_model(settings, Tier.EDGE, SystemClock())
        deadline = Deadline.after(SystemClock().monotonic_s(), 5000)
        asked.clear()

        here = await model.infer({"x": EXAMPLE}, deadline, Residency.DEVICE)
        assert asked == []
        both = await model.infer({"x": EXAMPLE}, deadline, Residency.REGION)
        await asyncio.to_thread(model.close)

    assert asked == [1]
    assert (here.confidence.label, both.confidence.label) == (1, 1)
    assert here.left_out in {(), ("far",)}
    assert both.left_out == ()


def test_beside_processes_a_server_is_asked_from_here(tmp_path: Path) -> None:
    from fakes.models import linear_model  # noqa: PLC0415

    files = {"near.onnx": linear_model()}
    with odd_server(answer) as url:
        members = (Member("near", "near.onnx"), Member("far", url=url, model="tiny"))
        write_model(tmp_path, manifest_of(files, members=members), files)

        near, far = start_members(open_model(tmp_path), ProcessOptions())
        found = [one.run({"x": EXAMPLE})["logits"] for one in (near, far)]
        near.close()
        far.close()

    assert isinstance(near, ProcessBackend)
    assert isinstance(far, OipBackend)
    same(found[0], found[1])
    assert len(LABELS) == found[0].shape[1]


def test_a_model_of_servers_alone_can_be_published_and_described(tmp_path: Path) -> None:
    with odd_server(answer) as url:
        write_model(tmp_path, manifest(url), {})
        prepared = prepare(tmp_path, model="tiny", version=1, policy=None, without_policy=True)

    assert set(prepared.variant.files) == {"manifest.json", "golden.npz"}
    release, folder, _ = read_release(tmp_path, 1)
    assert release.files == {}
    assert folder.manifest.members[0].url == url
    assert msgspec.json.decode(msgspec.json.encode(release), type=type(release)) == release


def test_a_free_axis_beside_the_batch_is_taken_as_it_comes() -> None:
    body, length = encode_response(
        {
            "logits": np.zeros((1, 2), np.float32),
            "boxes": np.zeros((1, 5), np.float32),
        },
        model_name="tiny",
    )
    outputs = (*OUTPUTS, TensorSpec("boxes", "FP32", (-1, -1)))
    there = [*METADATA["outputs"], {"name": "boxes", "datatype": "FP32", "shape": [-1, -1]}]

    handler = saying(body, headers={HTTP_HEADER_LENGTH: str(length)})
    with odd_server(handler, metadata=METADATA | {"outputs": there}) as url:
        found = opened(url, outputs=outputs).run({"x": EXAMPLE})

    assert found["boxes"].shape == (1, 5)
