"""Recent requests over HTTP, and why each of them was answered as it was.

GET /api/v1/requests             the newest first; ``reason``, ``label``, ``region``,
``outcome`` and so on, ``cursor``, ``limit``
GET /api/v1/requests/facets      how many decisions there are, by reason, label, model, region
GET /api/v1/requests/{id}        the story of one, as ``tierwise explain`` tells it; ``site``

They come from the decision logs of this machine and from the samples that all tiers send
(``runtime.decision_sample``); counts from telemetry, where it has any: then all decisions count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.operators.log_reading import FACETS, FILTERS, facets, logs_of
from cloud_tier.operators.pages_of import cursor_of, limit_of, place_of, words_of
from cloud_tier.operators.together import Page, Samples, find, page
from cloud_tier.rollouts.http_parts import Handler, json_response, number, told
from runtime.adapters.explain_query import audits_of, story_of
from runtime.adapters.policy_file import KnownPolicy
from runtime.core.explain import label_name
from runtime.core.reasons import plain
from runtime.core.story import paragraphs
from runtime.errors import (
    OverloadedError,
    StorageError,
    TierwiseError,
    UnavailableError,
    UnknownPageError,
)
from runtime.ports import Clock

MAX_AT_ONCE, MAX_WAITING = 2, 16
ANSWER_S = 20.0
_DAY_S = 86_400
_MAX_ID = 256


class _After(msgspec.Struct, array_like=True, frozen=True):
    wall_s: float
    request_id: str


class RequestsApi:
    """Adds the routes.

    Args:
        folders: state folders whose logs are read, at most one level deep.
        labels: names of the labels of the models that are served here.
        policies: policies that may have been followed.
        samples: single decisions of all tiers; None: there are none.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        clock: Clock,
        labels: Sequence[str] = (),
        policies: Sequence[KnownPolicy] = (),
        samples: Samples | None = None,
    ) -> None:
        self._folders, self._clock, self._samples = tuple(folders), clock, samples
        self._labels, self._policies = tuple(labels), tuple(policies)
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._num_waiting = 0

    def add_routes(self, app: web.Application, door: Door) -> None:
        """Serves them to those whom the door lets pass."""
        handlers: dict[str, Handler] = {
            "/api/v1/requests": self._list,
            "/api/v1/requests/facets": self._facets,
            "/api/v1/requests/{id}": self._show,
        }
        for path, handler in handlers.items():
            app.router.add_get(path, told(door.check, handler))

    def paths(self) -> list[Path]:
        """The logs that are there now."""
        return logs_of(self._folders)

    def line(self, row: dict[str, Any]) -> dict[str, Any]:
        """A request for a list."""
        return {**row, "label_name": label_name(row["label"], self._labels)}

    async def _list(self, request: web.Request) -> web.Response:
        wanted, limit = words_of(request, tuple(FILTERS)), limit_of(request)
        place = place_of(request, _After)
        after = (place.wall_s, place.request_id) if isinstance(place, _After) else None
        found, num = await self.in_turn(self._page, wanted, after, limit)
        return json_response(
            {
                "requests": [self.line(row) for row in found.rows],
                "next": cursor_of(found.after),
                "problems": found.problems,
                "sampled": num,
            }
        )

    def _page(
        self, wanted: dict[str, str], after: tuple[float, str] | None, limit: int
    ) -> tuple[Page, int | None]:
        """Requests, and how many samples they are chosen from; None where none are kept."""
        found = page(self.paths(), self._samples, wanted, after, limit)
        try:
            return found, None if self._samples is None else self._samples.num()
        except TierwiseError:
            # The page has named it.
            return found, None

    async def _facets(self, request: web.Request) -> web.Response:
        wanted = words_of(request, (*FILTERS, "last_s"))
        last_s = number(request, "last_s", _DAY_S)
        wanted.pop("last_s", None)
        since_s = self._clock.wall_s() - last_s
        found = await self.in_turn(self._counts, wanted, since_s)
        for one in found["facets"]["label"]:
            number_of = int(one["value"]) if one["value"].isdigit() else None
            one["name"] = label_name(number_of, self._labels)
        return json_response({**found, "names": list(FACETS), "labels": list(self._labels)})

    def _counts(self, wanted: dict[str, str], since_s: float) -> dict[str, Any]:
        """Of all decisions where telemetry knows of any, else of those in the logs."""
        problems = []
        try:
            told_ = None if self._samples is None else self._samples.facets(wanted, since_s)
        except StorageError as error:
            told_, problems = None, [str(error)]
        if told_ is not None and told_["decisions"]:
            return {**told_, "from": "telemetry"}
        found = facets(self.paths(), wanted, since_s)
        return {**found, "problems": [*problems, *found["problems"]], "from": "logs"}

    async def _show(self, request: web.Request) -> web.Response:
        request_id = request.match_info["id"][:_MAX_ID]
        site = words_of(request, ("site",)).get("site", "")
        return json_response(await self.in_turn(self._story, request_id, site))

    def _story(self, request_id: str, site: str) -> dict[str, Any]:
        paths = self.paths()
        records, notes = find(paths, self._samples, request_id, site=site)
        if not records:
            there = "" if self._samples is None else " and among the samples of all tiers"
            raise UnknownPageError(
                f"no decision about {plain(request_id)!r} in {len(paths)} decision logs{there}: it "
                "may be older than they go back, or in the log of another machine alone"
            )
        followed = {record.policy for record in records}
        known = next((one for one in self._policies if one.short in followed), None)
        audits = (*audits_of(paths, request_id), *notes)
        story = story_of(records, known=known, labels=self._labels, audits=audits)
        said: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(story))
        said["paragraphs"] = paragraphs(story)
        said["hops"] = [
            {
                "tier": one.tier,
                "site": one.site,
                "region": one.region,
                "model": one.model,
                "model_version": one.model_version,
                "action": one.action,
                "because": one.decided_because,
                "wall_s": one.wall_s,
                "latency_ms": one.latency_ms,
                "service_us": one.service_us,
                "sent_bytes": one.sent_bytes,
            }
            for one in records
        ]
        return said

    async def in_turn(self, ask: Any, *words: Any) -> Any:  # noqa: ANN401 - any question
        """The answer to a question of the logs, off the event loop, in a bounded time.

        Raises:
            OverloadedError: too many wait already.
            UnavailableError: it took too long.
        """
        if self._num_waiting >= MAX_WAITING:
            raise OverloadedError(f"{MAX_WAITING} questions wait already: ask again in a second")
        self._num_waiting += 1
        try:
            async with self._turns, asyncio.timeout(ANSWER_S):
                return await asyncio.to_thread(ask, *words)
        except TimeoutError:
            raise UnavailableError(
                f"the logs did not answer within {ANSWER_S:g} s: ask for fewer of them"
            ) from None
        finally:
            self._num_waiting -= 1
