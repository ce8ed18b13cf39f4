"""Who may use the operators' port: whoever can read a file of the cloud tier's state folder.

Rules of this file:
  * a program sends the token (``Authorization: Bearer``); a browser sends it once and gets a cookie
    that no script can read and no page of another site can use;
  * the port is asked for by an address of this machine: a name that was made to point here by
    somebody else (DNS rebinding) opens nothing;
  * what changes something and comes from a browser comes from a page of this port;
  * a token is compared in constant time, and is in no log line and no URL that is sent.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections import OrderedDict
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from runtime.adapters.dial import is_loopback
from runtime.errors import ForbiddenError, StartError, UnauthorizedError
from runtime.ports import Clock

FILE_NAME = "operator.json"
COOKIE = "tierwise_operator"
SESSION_S = 43_200.0
MAX_SESSIONS = 256
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_SAFE = ("GET", "HEAD")
_MAX_FILE_BYTES = 4096


class OperatorFile(msgspec.Struct, frozen=True):
    """Where the operators' port is, and what opens it."""

    url: str
    token: str


def read_operator_file(path: Path) -> OperatorFile | None:
    """What a cloud tier has written; None where it has not.

    Raises:
        StartError: the file cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            contents = file.read(_MAX_FILE_BYTES)
        found = msgspec.json.decode(contents, type=OperatorFile)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{path} is no operator file of a cloud tier: {error}") from error
    if not _TOKEN.fullmatch(found.token):
        raise StartError(f"{path} holds no token: delete it and start the cloud tier anew")
    return found


def token_of(folder: Path) -> str:
    """The token of a state folder, the same after a restart; a new one where there is none.

    Raises:
        StartError: the file is there and cannot be used.
    """
    found = read_operator_file(folder / FILE_NAME)
    return found.token if found else secrets.token_urlsafe(32)


def write_operator_file(folder: Path, url: str, token: str) -> Path:
    """Writes the file for its owner alone.

    Raises:
        StartError: the folder takes no file.
    """
    path = folder / FILE_NAME
    written = path.with_suffix(".new")
    try:
        written.unlink(missing_ok=True)
        handle = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(OperatorFile(url, token)) + b"\n")
        written.replace(path)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from error
    return path


class Door:
    """Decides about requests; ``check`` is what routes are behind."""

    def __init__(self, token: str, clock: Clock) -> None:
        self._token, self._clock = token.encode(), clock
        # Sessions of browsers, the oldest first, and when they end.
        self._sessions: OrderedDict[str, float] = OrderedDict()

    def check(self, request: web.Request) -> None:
        """Lets a request pass.

        Raises:
            ForbiddenError: it comes by a name, or from a page, that is not ours.
            UnauthorizedError: it has no token and no session.
        """
        check_address(request)
        scheme, _, said = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(said):
            return
        if not self._has_session(request.cookies.get(COOKIE, "")):
            wrong = "this token is of another cloud tier: " if said else ""
            raise UnauthorizedError(
                f"{wrong}show that of the operator.json in the state folder of the one that "
                "listens here (--operator FILE, or `Authorization: Bearer TOKEN`)"
            )
        if request.method not in _SAFE and request.headers.get("Origin") is None:
            raise ForbiddenError("a browser says from which page it asks (Origin), this did not")

    def log_in(self, said: str) -> str:
        """A session for whoever shows the token.

        Raises:
            UnauthorizedError: it is another one.
        """
        if not self._is_token(said):
            raise UnauthorizedError("this is not the token of the cloud tier's operator.json")
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        session = secrets.token_urlsafe(32)
        self._sessions[session] = self._clock.monotonic_s() + SESSION_S
        return session

    def log_out(self, session: str) -> None:
        """Ends a session."""
        self._sessions.pop(session, None)

    def _is_token(self, said: str) -> bool:
        return hmac.compare_digest(said.encode(errors="replace"), self._token)

    def _has_session(self, session: str) -> bool:
        return self._sessions.get(session, 0.0) > self._clock.monotonic_s()


def check_address(request: web.Request) -> None:
    """Refuses what has come by another name, or from a page of another site.

    Raises:
        ForbiddenError: it has.
    """
    here = _parts(f"//{request.headers.get('Host', '')}")
    if here is None or not is_loopback(here[0]):
        raise ForbiddenError("this port answers to 127.0.0.1 and localhost alone")
    origin = request.headers.get("Origin")
    if origin is not None and _parts(origin) != here:
        raise ForbiddenError("a page of another site may not ask this port")


def _parts(url: str) -> tuple[str, int | None] | None:
    """Host and port; None where there is no host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port) if host else None
