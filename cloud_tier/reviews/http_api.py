"""Reviews over HTTP, for whoever has the operators' token.

    GET  /api/v1/reviews                    items by name; ``state``, ``limit``, ``after``, ``who``
    GET  /api/v1/reviews/agreement          Cohen's kappa of each pair of people
    POST /api/v1/reviews/next               {"who"}: the item to look at now, or null
    GET  /api/v1/reviews/{item}             one; ``who``
    GET  /api/v1/reviews/{item}/picture     PNG of an input; ``name``
    GET  /api/v1/reviews/{item}/series      {"name", "lines"}; ``name``
    GET  /api/v1/reviews/{item}/inputs      the inputs as an Open Inference Protocol request
    POST /api/v1/reviews/{item}/label       {"who", "label", "spent_s"}
    POST /api/v1/reviews/{item}/skip        {"who", "why"}
    POST /api/v1/reviews/{item}/undo        {"who"}
    POST /api/v1/reviews/{item}/assign      {"who"}

What a move has become is ``outcome`` (``runtime.core.reviewing.Move``); whatever it is, the status
is 200, for the same move again is no error. What tiers have answered is in no response before the
one who asks has labelled the item, unless the setting ``review.shows_answers`` says so,
or a disputed item is asked for with ``all=1``.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from cloud_tier.operators.access import Door
from cloud_tier.reviews import looking
from cloud_tier.reviews.rendering import (
    described,
    inputs_of,
    picture_of,
    png_of,
    series_of,
    shown,
)
from cloud_tier.reviews.store import ReviewStore, Standing
from cloud_tier.reviews.views import item_view
from cloud_tier.rollouts.http_parts import json_response, number, read_body, told
from runtime import topics
from runtime.core.reviewing import State
from runtime.errors import RequestError, UnknownPageError

PREFIX = "/api/v1/reviews"
MAX_PAGE = 500
_Who = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}$")]


class By(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who does something."""

    who: _Who


class Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A label, by number or by name."""

    who: _Who
    label: Annotated[int, Meta(ge=0, le=2**31 - 1)] | Annotated[str, Meta(max_length=256)]
    spent_s: Annotated[float, Meta(ge=0, le=1e7)] = 0.0


class Skips(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That somebody cannot say, and why."""

    who: _Who
    why: Annotated[str, Meta(max_length=256)] = ""


class ReviewsApi:
    """Adds the routes."""

    def __init__(self, store: ReviewStore, *, shows_answers: bool = False) -> None:
        self._store, self._shows_answers = store, shows_answers

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves them from this application, behind this door."""
        get, post = app.router.add_get, app.router.add_post
        get(PREFIX, told(door.check, self._list))
        get(f"{PREFIX}/agreement", told(door.check, self._agreement))
        post(f"{PREFIX}/next", told(door.check, self._next))
        get(f"{PREFIX}/{{item}}", told(door.check, self._one))
        get(f"{PREFIX}/{{item}}/picture", told(door.check, self._picture))
        get(f"{PREFIX}/{{item}}/series", told(door.check, self._series))
        get(f"{PREFIX}/{{item}}/inputs", told(door.check, self._inputs))
        post(f"{PREFIX}/{{item}}/label", told(door.check, self._label))
        post(f"{PREFIX}/{{item}}/skip", told(door.check, self._skip))
        post(f"{PREFIX}/{{item}}/undo", told(door.check, self._undo))
        post(f"{PREFIX}/{{item}}/assign", told(door.check, self._assign))

    async def _list(self, request: web.Request) -> web.Response:
        states = [one for one in request.query.get("state", "").split(",") if one]
        unknown = sorted(set(states) - {one.value for one in State})
        if unknown:
            known = ", ".join(State)
            raise RequestError(f"there is no state {unknown[0][:40]!r}: {known}")
        limit = min(number(request, "limit", 100), MAX_PAGE)
        after = request.query.get("after", "")[:64]
        rows = await looking.page(self._store, states, limit=max(1, limit), after=after)
        now_s = self._store.wall_s()
        items = [
            item_view(row, None, "", now_s=now_s, shows_answers=self._shows_answers) for row in rows
        ]
        counts = await looking.counts(self._store)
        more = rows[-1].item if len(rows) == limit else ""
        return json_response({"items": items, "next": more, **counts})

    async def _agreement(self, _: web.Request) -> web.Response:
        return json_response({"pairs": await looking.agreement(self._store)})

    async def _next(self, request: web.Request) -> web.Response:
        by = await read_body(request, By)
        standing = await self._store.next(by.who)
        counts = await looking.counts(self._store)
        item = None if standing is None else await self._full(standing.row.item, by.who)
        return json_response({"item": item, **counts})

    async def _one(self, request: web.Request) -> web.Response:
        who = request.query.get("who", "")[:64]
        return json_response(await self._full(request.match_info["item"], who))

    async def _full(self, item: str, who: str) -> dict[str, Any]:
        row, case = await self._store.find(item, with_body=True)
        now_s = self._store.wall_s()
        view = item_view(row, case, who, now_s=now_s, shows_answers=self._shows_answers)
        try:
            inputs = await asyncio.to_thread(inputs_of, bytes(row.body), row.header_length)
        except UnknownPageError:
            return {**view, "inputs": []}
        return {**view, "inputs": described(inputs)}

    async def _picture(self, request: web.Request) -> web.Response:
        array = await self._input(request, "picture")
        png = await asyncio.to_thread(lambda: png_of(picture_of(array)))
        return web.Response(body=png, content_type="image/png")

    async def _series(self, request: web.Request) -> web.Response:
        array = await self._input(request, "series")
        return json_response({"lines": await asyncio.to_thread(series_of, array)})

    async def _input(self, request: web.Request, kind: str) -> Any:  # noqa: ANN401 an array
        row, _ = await self._store.find(request.match_info["item"], with_body=True)
        inputs = await asyncio.to_thread(inputs_of, bytes(row.body), row.header_length)
        name = request.query.get("name", "")
        for one in shown(inputs):
            if one.kind == kind and name in ("", one.name):
                return one.array
        raise UnknownPageError(f"this item has no {kind} {name[:40]!r}")

    async def _inputs(self, request: web.Request) -> web.Response:
        row, _ = await self._store.find(request.match_info["item"], with_body=True)
        body = bytes(row.body)
        if not body:
            raise UnknownPageError("the inputs of this item are not here")
        headers = {"Inference-Header-Content-Length": str(row.header_length)}
        return web.Response(body=body, content_type=topics.CONTENT_TYPE, headers=headers)

    async def _label(self, request: web.Request) -> web.Response:
        said = await read_body(request, Labels)
        row, _ = await self._store.find(request.match_info["item"])
        view = item_view(
            row, None, "", now_s=self._store.wall_s(), shows_answers=self._shows_answers
        )
        if not view["has_inputs"]:
            raise RequestError(
                "the inputs of this item have stayed on the device: label it there (`tierwise "
                "review label --agent URL`)"
            )
        label = _label_of(said.label, view["labels"])
        standing = await self._store.give(row.item, said.who, label, spent_s=said.spent_s)
        return await self._moved(standing, said.who)

    async def _skip(self, request: web.Request) -> web.Response:
        said = await read_body(request, Skips)
        item = request.match_info["item"]
        return await self._moved(
            await self._store.give(item, said.who, None, why=said.why), said.who
        )

    async def _undo(self, request: web.Request) -> web.Response:
        who = (await read_body(request, By)).who
        return await self._moved(await self._store.undo(request.match_info["item"], who), who)

    async def _assign(self, request: web.Request) -> web.Response:
        who = (await read_body(request, By)).who
        return await self._moved(await self._store.assign(request.match_info["item"], who), who)

    async def _moved(self, standing: Standing, who: str) -> web.Response:
        return json_response(
            {"outcome": standing.move.value, "item": await self._full(standing.row.item, who)}
        )


def _label_of(said: int | str, names: list[str]) -> int:
    if isinstance(said, str):
        if said not in names:
            raise RequestError(f"the model has no label {said[:40]!r}: {', '.join(names)[:200]}")
        return names.index(said)
    if names and said >= len(names):
        raise RequestError(f"the model has the labels 0 to {len(names) - 1}, not {said}")
    return said
