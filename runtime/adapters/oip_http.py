"""HTTP/1.1 requests to one server, each with one bound for all of it and for what it may answer.

Connections are kept, one for each thread. Proxies, redirects, cookies and compression are not for
a server that is part of a model: it is asked where the manifest says, or not at all.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from runtime.errors import BackendError

CONNECT_TIMEOUT_S = 2.0
_ERRORS = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; ``headers`` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpServer:
    """One server. ``ask`` may be called from several threads."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self.url, self._path = url, parts.path.rstrip("/")
        self._mine = threading.local()
        self._all: set[_Connection] = set()
        self._lock = threading.Lock()
        self._is_closed = False

    def ask(
        self,
        path: str,
        *,
        until_s: float,
        max_bytes: int,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """GET, or POST where there is a body.

        Args:
            path: below the URL.
            until_s: on the monotonic clock; connecting takes no longer than two seconds of it.
            max_bytes: of the answer's body.
            body: to be posted.
            headers: of the request.

        Raises:
            BackendError: there is no answer in time, or too long a one; the text says what to do.
        """
        connection, is_fresh = self._connection()
        try:
            try:
                return connection.ask(self._path + path, until_s, max_bytes, body, headers or {})
            except (ConnectionError, http.client.BadStatusLine):
                # A server may end a connection that has been idle; a request that it never answered
                # may be sent again, as inference changes nothing.
                if is_fresh:
                    raise
                self._drop()
                connection, _ = self._connection()
                return connection.ask(self._path + path, until_s, max_bytes, body, headers or {})
        except TimeoutError as error:
            self._drop()
            raise BackendError(
                f"{self.url} gave no answer in time; look whether it is overloaded, or raise "
                "model.run_timeout_ms"
            ) from error
        except _ERRORS as error:
            self._drop()
            raise BackendError(
                f"{self.url} cannot be asked: {' '.join(str(error).split())[:200]}; look whether "
                "it runs, and whether this machine can reach it"
            ) from error
        except BackendError:
            self._drop()
            raise

    def close(self) -> None:
        """Ends all connections; safe to call twice."""
        with self._lock:
            self._is_closed = True
            connections, self._all = self._all, set()
        for connection in connections:
            connection.close()

    def _connection(self) -> tuple[_Connection, bool]:
        found: _Connection | None = getattr(self._mine, "connection", None)
        if found is not None and not self._is_closed:
            return found, False
        made = _Connection(self._host, self._port, is_tls=self._is_tls)
        with self._lock:
            if self._is_closed:
                raise BackendError(f"{self.url} is closed")
            self._all.add(made)
        self._mine.connection = made
        return made, True

    def _drop(self) -> None:
        found: _Connection | None = getattr(self._mine, "connection", None)
        self._mine.connection = None
        if found is not None:
            with self._lock:
                self._all.discard(found)
            found.close()


class _Connection:
    """One connection, of one thread."""

    def __init__(self, host: str, port: int | None, *, is_tls: bool) -> None:
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        self._http = kind(host, port)
        self._tls = ssl.create_default_context() if is_tls else None
        self._socket: _BoundedSocket | None = None

    def ask(
        self, path: str, until_s: float, max_bytes: int, body: bytes | None, headers: dict[str, str]
    ) -> Reply:
        if self._socket is None:
            connect_until_s = min(until_s, time.monotonic() + CONNECT_TIMEOUT_S)
            connected = _connected(self._http.host, self._http.port, connect_until_s)
            try:
                if self._tls is not None:
                    connected.settimeout(_left_s(connect_until_s))
                    connected = self._tls.wrap_socket(connected, server_hostname=self._http.host)
            except BaseException:
                connected.close()
                raise
            self._socket = _BoundedSocket(connected)
            # It is asked for what sockets are asked for by http.client, and for no more.
            self._http.sock = self._socket
        self._socket.until_s = until_s
        self._http.request("GET" if body is None else "POST", path, body, headers)
        response = self._http.getresponse()
        length = response.length
        if length is not None and length > max_bytes:
            raise BackendError(
                f"the answer announces {length} bytes, over the limit of {max_bytes}: "
                "look what answers there"
            )
        content = response.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise BackendError(
                f"the answer has more than {max_bytes} bytes: look what answers there"
            )
        if length is not None and len(content) < length:
            raise http.client.IncompleteRead(content, length - len(content))
        # Reads the end of a chunked body, so that the next answer begins where it should.
        response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        if response.will_close:
            self.close()
        return Reply(response.status, found, content)

    def close(self) -> None:
        self._http.close()
        if self._socket is not None:
            self._socket.end()
            self._socket = None


def _connected(host: str, port: int, until_s: float) -> socket.socket:
    """A connection to one of the host's addresses; what time there is, they share.

    Looking the name up is the system's, and takes as long as that lets it.

    Raises:
        OSError: none of them answers (TimeoutError: in time).
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError(f"{host} has no address")
    for number, (family, kind, protocol, _, where) in enumerate(found):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(_left_s(until_s) / (len(found) - number))
            connected.connect(where)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connected.close()
            failure = error
        else:
            return connected
    raise failure


class _BoundedSocket:
    """A socket whose every call ends by ``until_s``, however slowly the other side drips."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.until_s = 0.0

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(_left_s(self.until_s))
        self._inner.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def recv_into(self, buffer: Any) -> int:  # noqa: ANN401 - whatever a reader fills
        self._inner.settimeout(_left_s(self.until_s))
        return self._inner.recv_into(buffer)

    def close(self) -> None:
        """Does nothing: http.client closes before it has read an answer without a length."""

    def end(self) -> None:
        """Really closes it."""
        self._inner.close()


class _Reader(io.RawIOBase):
    def __init__(self, inner: _BoundedSocket) -> None:
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - as of the base class
        return self._inner.recv_into(buffer)


def _left_s(until_s: float) -> float:
    """What is left; a socket takes 0 for not waiting at all."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
