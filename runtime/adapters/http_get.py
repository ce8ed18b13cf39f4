"""One small file over HTTP, for a thread that may block; whoever sends it may be hostile.

Rules of this file:
  * redirects are not followed, nothing is decompressed, no cookie is kept, no proxy is asked;
  * every byte that is read, those of the head as well, counts against a minimum rate and a total
    time, and no more are read than the limit;
  * a reply has to say how long it is, so that one that breaks off is told from one that ends;
  * whatever ends it early is a ``GetError`` with its ``Trouble``; nothing is given out by halves.

Large files go through ``runtime.adapters.blob_transfer``.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from runtime.core.mirrors import Trouble, retry_after_s, trouble_of_status
from runtime.core.pacing import RateFloor
from runtime.errors import FetchError, StartError
from runtime.ports import Clock
from runtime.ports_updates import MAX_DOCUMENT_BYTES

_PIECE_BYTES = 1 << 16
_OK = 200
_PAGES = {"text/html", "application/xhtml+xml"}
_URL = re.compile(r"https?://[^\s?#@]+\Z")


class GetError(FetchError):
    """A request came to nothing; ``retry_after_s`` is what the other side asks to wait."""

    def __init__(self, trouble: Trouble, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.trouble, self.retry_after_s = trouble, retry_after_s


@dataclass(frozen=True, slots=True)
class GetLimits:
    """How long a connection, a silence and the whole may take, how slow and how long a body is."""

    connect_s: float = 10.0
    patience_s: float = 30.0
    min_bytes_per_s: float = 1024.0
    total_s: float = 600.0
    max_bytes: int = MAX_DOCUMENT_BYTES


class HttpServer:
    """Whom to ask: ``http://host:port`` or ``https://``, and what is in front of all paths.

    Raises:
        StartError: it is no such URL.
    """

    def __init__(
        self,
        base_url: str,
        clock: Clock,
        limits: GetLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = base_url.rstrip("/")
        self._clock, self._limits = clock, limits or GetLimits()
        try:
            parts = urlsplit(self.url)
            self._host, self._port = parts.hostname or "", parts.port
            self._host.encode("idna")
        except ValueError as error:
            raise _no_url(base_url) from error
        if not _URL.match(self.url) or not self._host:
            raise _no_url(base_url)
        self._prefix = parts.path
        # Made once: reading the certificates of the system takes longer than a request.
        self._tls = tls or ssl.create_default_context() if parts.scheme == "https" else None

    def get(self, path: str) -> bytes:
        """The whole file at a path, which begins with ``/`` and needs no quoting.

        Raises:
            GetError: not all of it came.
        """
        connection = self._connection()
        try:
            return self._asked(connection, path)
        except http.client.IncompleteRead as error:
            raise GetError(Trouble.CUT, "the body ends early") from error
        except http.client.RemoteDisconnected as error:
            raise GetError(Trouble.CUT, "the connection ended without a reply") from error
        except http.client.HTTPException as error:
            raise GetError(Trouble.UNEXPECTED, f"no HTTP reply: {error!r:.200}") from error
        except OSError as error:
            raise GetError(
                Trouble.CUT, f"the connection broke: {error.strerror or error}"
            ) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        timeout_s = self._limits.connect_s
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout_s, context=self._tls
        )

    def _asked(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        try:
            connection.connect()
        except OSError as error:
            raise GetError(Trouble.UNREACHABLE, f"no connection: {error}") from error
        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        connection.request("GET", f"{self._prefix}{path}", headers=headers)
        paced = _Paced(connection.sock, self._clock, self._limits)
        with _response(paced) as response:
            response.begin()
            _check_head(response, self._limits.max_bytes)
            return _body(response, self._limits.max_bytes)


class _Paced(io.RawIOBase):
    """What a socket receives, as long as that is neither too slow nor takes too long."""

    def __init__(self, sock: socket.socket, clock: Clock, limits: GetLimits) -> None:
        self._sock, self._clock = sock, clock
        self._raw = sock.makefile("rb", buffering=0)
        self._floor = RateFloor(
            patience_s=limits.patience_s, min_bytes_per_s=limits.min_bytes_per_s
        )
        self._ends_s = clock.monotonic_s() + limits.total_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What ``http.client`` asks of a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        began_s = self._clock.monotonic_s()
        left_s = min(self._floor.left_s, self._ends_s - began_s)
        if left_s <= 0:
            raise _too_slow()
        self._sock.settimeout(left_s)
        try:
            num_bytes = self._raw.readinto(buffer) or 0
        except TimeoutError as error:
            raise _too_slow() from error
        self._floor.heard(num_bytes, self._clock.monotonic_s() - began_s)
        return num_bytes

    def close(self) -> None:
        self._raw.close()
        super().close()


def _response(paced: _Paced) -> http.client.HTTPResponse:
    # All that is asked of the socket is its ``makefile``.
    return http.client.HTTPResponse(paced, method="GET")  # type: ignore[arg-type]


def _check_head(response: http.client.HTTPResponse, max_bytes: int) -> None:
    trouble = trouble_of_status(response.status)
    if trouble is not None:
        wait_s = retry_after_s(response.headers.get("Retry-After", ""))
        if trouble is Trouble.BUSY and not wait_s:
            trouble = Trouble.SERVER_FAILED
        raise GetError(trouble, f"status {response.status}", retry_after_s=wait_s)
    if response.status != _OK:
        raise GetError(Trouble.WRONG_RANGE, "a part of the file, which was not asked for")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise GetError(Trouble.UNEXPECTED, "the body is encoded, which was not asked for")
    if response.headers.get_content_type() in _PAGES:
        raise GetError(Trouble.PAGE, "a page for people: is there a portal in between?")
    if response.length is None and not response.chunked:
        raise GetError(Trouble.WRONG_LENGTH, "the reply does not say how long it is")
    if response.length is not None and response.length > max_bytes:
        raise GetError(Trouble.TOO_LONG, f"{response.length} bytes, not {max_bytes} at most")


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    body = bytearray()
    while piece := response.read1(_PIECE_BYTES):
        body += piece
        if len(body) > max_bytes:
            raise GetError(Trouble.TOO_LONG, f"more than {max_bytes} bytes")
    if response.length:
        raise GetError(Trouble.CUT, f"{response.length} bytes are missing at the end")
    return bytes(body)


def _too_slow() -> GetError:
    return GetError(Trouble.STALLED, "too few bytes a second, or it takes too long")


def _no_url(base_url: str) -> StartError:
    return StartError(
        f"{base_url!r} is no address of a mirror: http://HOST:PORT or https://HOST, without a "
        "query or a password"
    )
