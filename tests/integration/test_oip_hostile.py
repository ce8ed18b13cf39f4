"""A server that answers nonsense, too much, too slowly or not at all is a BackendError."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fakes.oip_members import (
    EXAMPLE,
    answer,
    closing_members,
    opened,
    reply,
    saying,
)
from fakes.oip_servers import Handler, odd_server
from runtime.adapters.oip_http import HttpServer
from runtime.codec import (
    HTTP_HEADER_LENGTH,
    encode_response,
)
from runtime.errors import BackendError


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with closing_members():
        yield


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
    ("serve", "timeout_ms", "complaint"),
    [
        (silent, 50, "gave no answer in time"),
        (dripping, 50, "gave no answer in time"),
        (hanging_up, 10_000, "cannot be asked"),
        (babbling, 10_000, "cannot be asked"),
        (rambling, 10_000, "cannot be asked"),
    ],
)
def test_a_server_that_is_none_costs_no_more_than_its_time(
    serve: Callable[[socket.socket, threading.Event], None], timeout_ms: float, complaint: str
) -> None:
    """The default guess of a run is 20 ms: five runs' patience on top of the 50 ms."""
    with raw_server(serve) as url:
        backend = opened(url, timeout_ms=timeout_ms)

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


def test_an_address_that_does_not_answer_leaves_time_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def good(connection: socket.socket, _: threading.Event) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with raw_server(good) as url, ExitStack() as sockets:
        port = int(url.rpartition(":")[2])
        silent = sockets.enter_context(socket.socket())
        silent.bind(("127.0.0.2", port))
        silent.listen(0)
        # Nobody accepts: beyond these, a connection is not even refused.
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", port))
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        server = HttpServer(f"http://two.example:{port}")
        reply = server.ask("/", until_s=time.monotonic() + 1.5, max_bytes=100)
        server.close()

    assert reply.body == b"ok"


def _asked(server: HttpServer) -> str:
    try:
        return server.ask("/", until_s=time.monotonic() + 5, max_bytes=100).body.decode()
    except BackendError as error:
        return str(error)


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
