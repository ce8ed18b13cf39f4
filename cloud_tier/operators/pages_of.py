"""Pages of long lists: how long they are, and where the next one begins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec
from aiohttp import web

from cloud_tier.rollouts.http_parts import number
from runtime.errors import RequestError

MAX_LIMIT, DEFAULT_LIMIT = 500, 50
_MAX_CURSOR, _MAX_TEXT = 1000, 128


def limit_of(request: web.Request) -> int:
    """How many are wanted at once.

    Raises:
        RequestError: it is no number, or 0.
    """
    limit = number(request, "limit", DEFAULT_LIMIT)
    if not limit:
        raise RequestError(f"limit is 1 to {MAX_LIMIT}")
    return min(limit, MAX_LIMIT)


def words_of(request: web.Request, names: Sequence[str]) -> dict[str, str]:
    """The words of a query that are there and say something.

    Raises:
        RequestError: there is another one, one is there twice, or one is too long.
    """
    known = (*names, "cursor", "limit")
    for name in request.query:
        if name not in known:
            raise RequestError(f"no {name[:40]!r} here: there are {', '.join(known)}")
        if len(request.query.getall(name)) > 1:
            raise RequestError(f"{name} is there twice")
    found = {name: request.query[name] for name in names if request.query.get(name)}
    for name, value in found.items():
        if len(value) > _MAX_TEXT:
            raise RequestError(f"{name} has at most {_MAX_TEXT} characters")
    return found


def cursor_of(place: tuple[object, ...] | None) -> str:
    """Where the next page begins, as it goes into an address; empty where there is none."""
    if place is None:
        return ""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(request: web.Request, kind: type[msgspec.Struct]) -> msgspec.Struct | None:
    """The place in the query's cursor, as an array-like struct; None of none.

    Raises:
        RequestError: it is none of ours.
    """
    text = request.query.get("cursor", "")
    if not text:
        return None
    try:
        text = text[:_MAX_CURSOR]
        said = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        found: msgspec.Struct = msgspec.json.decode(said, type=kind)
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise RequestError("this cursor is of no page: begin without one") from None
    return found
