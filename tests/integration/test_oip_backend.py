"""A member that is somebody's server: real HTTP, and every way in which it can go wrong."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloud_tier.publishing import prepare
from fakes.models import INPUTS, LABELS, OUTPUTS, WEIGHTS, manifest_of
from fakes.oip_servers import METADATA, Handler, agent_server, odd_server
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
from runtime.manifest import Member, ModelManifest, Quantization
from runtime.messages import Residency, Tensors, TensorSpec, Tier

EXAMPLE = np.array([[1, 2, 3]], np.float32)
LOGITS: Any = EXAMPLE @ WEIGHTS


def manifest(url: str, **changes: Any) -> ModelManifest:
    return manifest_of({}, members=(Member("far", url=url, model="tiny"),), **changes)


def same(found: Any, expected: Any, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found, expected, atol=atol)


_opened: list[OipBackend] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Ends the connections that a test has made."""
    yield
    for backend in _opened:
        backend.close()
    _opened.clear()


def opened(url: str, *, timeout_ms: float = 2000, **changes: Any) -> OipBackend:
    described = manifest(url, **changes)
    backend = OipBackend(described.members[0], described, run_timeout_ms=timeout_ms)
    _opened.append(backend)
    return backend


async def answer(request: web.Request) -> web.Response:
    """As a good server does, in the form that was asked for."""
    raw = await request.read()
    length = parse_header_length(request.headers.get(HTTP_HEADER_LENGTH, ""), len(raw))
    asked = decode_request(raw, length)
    found: Any = asked.inputs["x"]
    body, header_length = encode_response(
        {"logits": found @ WEIGHTS}, model_name="tiny", request=asked
    )
    headers = {} if header_length is None else {HTTP_HEADER_LENGTH: str(header_length)}
    return web.Response(body=body, headers=headers)


def saying(body: bytes, **options: Any) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, **options)

    return handle


def reply(data: Any = (5, 8), **changes: Any) -> bytes:
    output = {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": data} | changes
    return json.dumps({"model_name": "tiny", "outputs": [output]}).encode()


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


BAD_ANSWERS = [
    ("html", saying(b"<html>Log in</html>", content_type="text/html"), "no answer of the Open"),
    ("empty", saying(b""), "no answer of the Open"),
    ("error", saying(b'{"error": "out of memory"}', status=500), "HTTP 500 .*out of memory"),
    ("error as answer", saying(b'{"error": "unhappy"}'), "unhappy"),
    ("redirect", saying(b"", status=302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
    ("deep", saying(b"[" * 10_000), "no answer of the Open"),
    ("not utf-8", saying(b'{"model_name": "\xff"}'), "no answer of the Open"),
    ("no output", saying(reply(name="other")), r"left out 'logits'; it gave \['other'\]"),
    ("type", saying(reply(datatype="FP64")), "is float64, not FP32"),
    ("text", saying(reply(["a", "b"], datatype="BYTES")), "is object, not FP32"),
    ("shape", saying(reply(shape=[2, 1])), r"has shape \[2, 1\] for a batch of 1, not \[1, 2\]"),
    ("rank", saying(reply(shape=[2])), r"has shape \[2\]"),
    ("batch", saying(reply((1, 2, 3, 4), shape=[2, 2])), r"has shape \[2, 2\]"),
    ("count", saying(reply((1, 2, 3))), "no answer of the Open"),
    ("huge shape", saying(reply(shape=[2**40, 2**40])), "no answer of the Open"),
    ("header length", saying(reply(), headers={HTTP_HEADER_LENGTH: "999999"}), "header length"),
    ("nan", saying(b'{"model_name":"t","outputs":[{"name":"logits","datatype":"FP32","shape":[1,2],'
                   b'"data":[NaN, 1]}]}'), "no answer of the Open"),
    ("too long", saying(reply() + b" " * 200_000), "announces .* over the limit"),
    ("compressed", saying(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}), "no answer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("handler", "complaint"), [one[1:] for one in BAD_ANSWERS], ids=[one[0] for one in BAD_ANSWERS]
)
def test_what_is_no_answer_is_a_backend_error(handler: Handler, complaint: str) -> None:
    with odd_server(handler) as url, pytest.raises(BackendError, match=complaint):
        opened(url).run({"x": EXAMPLE})


def test_nan_in_raw_bytes_is_no_answer_either() -> None:
    body, length = encode_response(
        {"logits": np.array([[np.nan, 1]], np.float32)}, model_name="tiny"
    )
    handler = saying(body, headers={HTTP_HEADER_LENGTH: str(length)})

    with odd_server(handler) as url, pytest.raises(BackendError, match="holds NaN or infinity"):
        opened(url).run({"x": EXAMPLE})


def test_an_answer_without_a_length_is_bounded_too() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        made = web.StreamResponse()
        await made.prepare(request)
        for _ in range(1000):
            await made.write(b" " * 4096)
        return made

    with odd_server(endless) as url, pytest.raises(BackendError, match=r"has more than .* bytes"):
        opened(url).run({"x": EXAMPLE})


@contextmanager
def raw_server(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server below HTTP: ``serve`` has each connection until it returns."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def run() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    try:
                        serve(connection, over)
                    except OSError:  # whoever asked has left
                        continue

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def silent(connection: socket.socket, over: threading.Event) -> None:
    connection.recv(1000)
    over.wait()


def dripping(connection: socket.socket, over: threading.Event) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Header: ")
    while not over.wait(0.02):
        connection.sendall(b"a")


def hanging_up(connection: socket.socket, _: threading.Event) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


def babbling(connection: socket.socket, _: threading.Event) -> None:
    connection.recv(1000)
    connection.sendall(b"220 mail.example ESMTP\r\n" * 10)


def rambling(connection: socket.socket, _: threading.Event) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 500 + b"\r\n")


@pytest.mark.parametrize(
    ("serve", "complaint"),
    [
        (silent, "gave no answer in time"),
        (dripping, "gave no answer in time"),
        (hanging_up, "cannot be asked"),
        (babbling, "cannot be asked"),
        (rambling, "cannot be asked"),
    ],
)
def test_a_server_that_is_none_costs_no_more_than_its_time(
    serve: Callable[[socket.socket, threading.Event], None], complaint: str
) -> None:
    """The default guess of a run is 20 ms: five runs' patience on top of the 50 ms."""
    with raw_server(serve) as url:
        backend = opened(url, timeout_ms=50)

        with pytest.raises(BackendError, match=complaint):
            backend.run({"x": EXAMPLE})


def _self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for this machine that nobody else has signed, and a server's context of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "oip")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return certificate_file, context


def test_https_is_spoken_to_servers_whose_certificate_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = _self_signed(tmp_path)

    def secret(connection: socket.socket, _: threading.Event) -> None:
        with context.wrap_socket(connection, server_side=True) as inside:
            inside.recv(1000)
            inside.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with raw_server(secret) as url:
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            server = HttpServer(url.replace("http:", "https:"))
            said = _asked(server)
            server.close()
            assert said == "ok" if trusted else "certificate verify failed" in said


def _asked(server: HttpServer) -> str:
    try:
        return server.ask("/", until_s=time.monotonic() + 5, max_bytes=100).body.decode()
    except BackendError as error:
        return str(error)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_server_that_is_away_at_the_start_is_asked_again(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
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


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (saying(b"", status=404), "look whether the model 'tiny' is loaded there"),
        (saying(b"busy", status=503), "HTTP 503 .*busy"),
        (saying(b"<html>"), "says nothing of the Open Inference Protocol"),
        (saying(b"[" * 100_000), "says nothing of the Open Inference Protocol"),
    ],
)
def test_metadata_that_cannot_be_read_is_as_if_it_were_away(
    handler: Handler, complaint: str
) -> None:
    with odd_server(answer, metadata=handler) as url, pytest.raises(BackendError, match=complaint):
        opened(url).run({"x": EXAMPLE})


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
