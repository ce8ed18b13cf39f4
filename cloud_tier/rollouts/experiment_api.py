"""Experiments over HTTP, beside rollouts and by the same rules.

GET  /experiments                  all, the newest first
POST /experiments                  ``ExperimentRequest``: start one
GET  /experiments/{id}             how it stands
POST /experiments/{id}/stop        ``CommandRequest``: end it; devices go back
POST /experiments/{id}/promote     ``PromoteRequest``: end it, and draft a rollout of an arm
GET  /experiments/{id}/history     the audit
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.experiment_states import (
    ExperimentRequest,
    ExperimentState,
    PromoteRequest,
    sizes_of,
)
from cloud_tier.rollouts.experiments import Experiments
from cloud_tier.rollouts.http_parts import Check, json_response, number, read_body, told
from cloud_tier.rollouts.requests import CommandRequest
from cloud_tier.rollouts.views import audit_line


class ExperimentApi:
    """Adds the routes."""

    def __init__(
        self, controller: Controller, experiments: Experiments, check: Check = lambda _: None
    ) -> None:
        self._controller, self._experiments, self._check = controller, experiments, check

    def add_routes(self, app: web.Application) -> None:
        """Serves them from this application."""
        for method, path, handler in (
            ("GET", "/experiments", self._list),
            ("POST", "/experiments", self._start),
            ("GET", "/experiments/{id}", self._show),
            ("GET", "/experiments/{id}/history", self._history),
            ("POST", "/experiments/{id}/stop", self._stop),
            ("POST", "/experiments/{id}/promote", self._promote),
        ):
            app.router.add_route(method, path, told(self._check, handler))

    async def _list(self, _: web.Request) -> web.Response:
        return json_response({"experiments": [shown(one) for one in await self._all()]})

    async def _all(self) -> list[ExperimentState]:
        return await self._experiments.store.all()

    async def _start(self, request: web.Request) -> web.Response:
        asked = await read_body(request, ExperimentRequest)
        return json_response(shown(await self._experiments.start(asked)), 201)

    async def _show(self, request: web.Request) -> web.Response:
        state = await self._experiments.store.get(request.match_info["id"])
        said = shown(state)
        if state.split_by:
            said["unkeyed_requests"] = await self._experiments.unkeyed(state)
        return json_response(said)

    async def _history(self, request: web.Request) -> web.Response:
        state = await self._experiments.store.get(request.match_info["id"])
        rows = await self._controller.store.history(state.id, number(request, "after", 0))
        return json_response({"history": [audit_line(row) for row in rows]})

    async def _stop(self, request: web.Request) -> web.Response:
        asked = await read_body(request, CommandRequest)
        return json_response(shown(await self._experiments.stop(request.match_info["id"], asked)))

    async def _promote(self, request: web.Request) -> web.Response:
        asked = await read_body(request, PromoteRequest)
        name = request.match_info["id"]
        return json_response(shown(await self._experiments.promote(name, asked)))


def shown(state: ExperimentState) -> dict[str, Any]:
    """How an experiment stands."""
    sizes = sizes_of(state)
    goals = (state.spec.primary, *state.spec.guardrails)
    return {
        "id": state.id,
        "model": state.model,
        "is_running": not state.ended,
        "ended": state.ended,
        "started_s": state.started_s,
        "by": state.by,
        "why": state.why,
        "split_by": state.split_by,
        "primary": state.spec.primary.name,
        "guardrails": {one.name: one.allowed for one in state.spec.guardrails},
        "observe_s": state.observe_s,
        "min_devices": state.spec.min_num,
        "outcome": state.answer.outcome.value if state.answer else "keep_running",
        "says": state.answer.why if state.answer else "nothing was observed yet",
        "winner": state.answer.arm if state.answer and state.answer.outcome == "wins" else "",
        "draft": state.draft,
        "metrics": [one.name for one in goals],
        "arms": [
            {
                "name": arm.name,
                "version": state.arms[arm.name].version,
                "weight": arm.weight,
                "rollout": state.arms[arm.name].rollout,
                "devices": len(state.devices)
                if state.split_by
                else sum(one == arm.name for one in state.devices.values()),
                "observed": sizes.get(arm.name, 0),
                "means": msgspec.to_builtins(state.answer.means.get(arm.name, {}))
                if state.answer
                else {},
                "gain": msgspec.to_builtins(state.answer.gains.get(arm.name))
                if state.answer
                else None,
            }
            for arm in state.spec.arms
        ],
    }
