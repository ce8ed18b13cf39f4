"""What this cloud tier does not serve to operators, and what would have to be set for it."""

from __future__ import annotations

from typing import NoReturn

from aiohttp import web

from cloud_tier.operators.access import Door
from cloud_tier.operators.listener import AddRoutes
from cloud_tier.rollouts.http_parts import told
from runtime.errors import UnknownPageError

_NO_TELEMETRY = (
    "the cloud tier keeps no telemetry and no reviews: pip install 'tierwise[cloud]' where it "
    "runs, set telemetry.enabled = true, and start it again"
)
_NO_ROLLOUTS = (
    "the cloud tier has no key for rollouts and experiments: set updates.repository and "
    "rollouts.key_file in its settings, and start it again"
)


def refusals(*, has_rollouts: bool, has_telemetry: bool) -> list[AddRoutes]:
    """Routes of what is off, each of which says why; of what is on, none."""
    off = dict.fromkeys(() if has_rollouts else ("/rollouts", "/experiments"), _NO_ROLLOUTS)
    # Answers that wait for people are kept in the same database.
    off |= dict.fromkeys(
        () if has_telemetry else ("/api/v1/metrics", "/api/v1/reviews"), _NO_TELEMETRY
    )
    return [_refusing(path, why) for path, why in off.items()]


def _refusing(path: str, why: str) -> AddRoutes:
    async def refuse(_: web.Request) -> NoReturn:
        raise UnknownPageError(why)

    def add_routes(app: web.Application, door: Door) -> None:
        for pattern in (path, f"{path}/{{rest:.*}}"):
            app.router.add_route("*", pattern, told(door.check, refuse))

    return add_routes
