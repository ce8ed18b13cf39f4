"""How sure models are as time goes on, by tier and version: a histogram for each piece of time.

    GET /api/v1/drift    ``last_s``, ``tier``, ``model``, ``region``

A model that meets other inputs than before is less sure, or sure of other things, before anybody
knows a true label. Each piece is compared with all pieces together: ``distance`` is the total
variation, 0 (the same) to 1. ``suspended`` counts decisions whose guarantee a tier had suspended,
which it does when its own test of drift, or audits, say so (docs/policies.md).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.operators.log_reading import FILTERS, MAX_ROWS
from cloud_tier.operators.pages_of import words_of
from cloud_tier.operators.requests_api import RequestsApi
from cloud_tier.rollouts.http_parts import json_response, number, told
from runtime.adapters.log_file import reading
from runtime.errors import RequestError, StartError
from runtime.messages import Guarantee
from runtime.telemetry import NUM_CONFIDENCE_BINS

NUM_PIECES, MAX_SERIES = 24, 50
# Of fewer decisions in a piece nothing is concluded.
MIN_COUNT = 50
_DAY_S, _MAX_S = 86_400, 31 * 86_400
_Key = tuple[str, str, str]


class DriftApi:
    """Adds the route."""

    def __init__(self, requests: RequestsApi, wall_s: Callable[[], float]) -> None:
        self._requests, self._wall_s = requests, wall_s

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves it to those whom the door lets pass."""
        app.router.add_get("/api/v1/drift", told(door.check, self._show))

    async def _show(self, request: web.Request) -> web.Response:
        wanted = words_of(request, ("tier", "model", "region", "last_s"))
        last_s = number(request, "last_s", _DAY_S)
        wanted.pop("last_s", None)
        if not NUM_PIECES <= last_s <= _MAX_S:
            raise RequestError(f"last_s is {NUM_PIECES} to {_MAX_S}")
        until_s = self._wall_s()
        paths = self._requests.paths()
        return json_response(
            await self._requests.in_turn(histograms, paths, wanted, until_s - last_s, until_s)
        )


def histograms(
    paths: Sequence[Path], wanted: Mapping[str, str], since_s: float, until_s: float
) -> dict[str, Any]:
    """The histograms of all logs; what could not be read is named."""
    found: dict[_Key, list[list[int]]] = {}
    suspended: dict[_Key, list[int]] = {}
    problems = []
    for path in paths:
        try:
            with reading(path, "decisions") as log:
                if log is not None:
                    _count(log, wanted, (since_s, until_s), found, suspended)
        except StartError as error:
            problems.append(str(error))
    most = sorted(found, key=lambda key: -sum(map(sum, found[key])))[:MAX_SERIES]
    return {
        "since_s": since_s,
        "until_s": until_s,
        "piece_s": (until_s - since_s) / NUM_PIECES,
        "min_count": MIN_COUNT,
        "series": [_series(key, found[key], suspended[key]) for key in sorted(most)],
        "problems": problems,
    }


def _count(
    log: sqlite3.Connection,
    wanted: Mapping[str, str],
    times: tuple[float, float],
    found: dict[_Key, list[list[int]]],
    suspended: dict[_Key, list[int]],
) -> None:
    since_s, until_s = times
    where = " AND ".join(f"{FILTERS[name]} = ?" for name in wanted) or "1"
    last_bin = NUM_CONFIDENCE_BINS - 1
    query = (
        "SELECT tier, model, model_version, "  # noqa: S608 - own names and numbers
        f"CAST((wall_s - ?) * {NUM_PIECES} / ? AS INTEGER) AS piece, "
        f"max(0, min({last_bin}, CAST(confidence * {NUM_CONFIDENCE_BINS} AS INTEGER))) AS bin, "
        "count(*), sum(guarantee = ?) "
        f"FROM (SELECT * FROM decisions ORDER BY rowid DESC LIMIT {MAX_ROWS}) "
        f"WHERE wall_s >= ? AND wall_s < ? AND confidence IS NOT NULL AND {where} "
        f"GROUP BY tier, model, model_version, piece, bin LIMIT {MAX_ROWS}"
    )
    values = (since_s, until_s - since_s, Guarantee.SUSPENDED.value, since_s, until_s)
    for tier, model, version, piece, part, count, num in log.execute(
        query, (*values, *wanted.values())
    ):
        key = (tier, model, version)
        empty = [[0] * NUM_CONFIDENCE_BINS for _ in range(NUM_PIECES)]
        at = min(piece, NUM_PIECES - 1)
        found.setdefault(key, empty)[at][part] += count
        suspended.setdefault(key, [0] * NUM_PIECES)[at] += num


def _series(key: _Key, pieces: list[list[int]], suspended: list[int]) -> dict[str, Any]:
    total = [sum(parts) for parts in zip(*pieces, strict=True)]
    return {
        "tier": key[0],
        "model": key[1],
        "version": key[2],
        "count": sum(total),
        "suspended": sum(suspended),
        "pieces": [
            {
                "bins": piece,
                "suspended": num,
                "distance": distance(piece, total) if sum(piece) >= MIN_COUNT else None,
            }
            for piece, num in zip(pieces, suspended, strict=True)
        ],
    }


def distance(one: Sequence[int], other: Sequence[int]) -> float:
    """The total variation of two histograms, 0 to 1; of an empty one it is 0."""
    sums = sum(one), sum(other)
    if not all(sums):
        return 0.0
    return sum(abs(a / sums[0] - b / sums[1]) for a, b in zip(one, other, strict=True)) / 2
