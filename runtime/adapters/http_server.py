"""An aiohttp server that a tier runs for as long as it lives: health, metrics, own routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from runtime.adapters.metrics import TierMetrics, metrics_handler
from runtime.codec import encode_error
from runtime.errors import StartError, TierwiseError, describe, public

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def operations_app(
    metrics: TierMetrics,
    is_ready: Callable[[], bool],
    *,
    max_body_bytes: int = 1_048_576,
    control: Callable[[], dict[str, Any]] | None = None,
) -> web.Application:
    """An application with ``/v2/health/live``, ``/v2/health/ready`` and ``/metrics``.

    With ``control``, what an operator has stopped, also ``/v2/control``. Who is stopped stays
    ready, because it says so in its answers, and its readiness says so in the body.
    """

    async def live(_: web.Request) -> web.Response:
        return web.Response()

    async def ready(_: web.Request) -> web.Response:
        status = 200 if is_ready() else 503
        shown = control() if control else {}
        if not shown.get("mode"):
            return web.Response(status=status)
        said = {name: shown[name] for name in ("mode", "notice", "is_known")}
        return web.json_response(said, status=status)

    async def show_control(_: web.Request) -> web.Response:
        return web.json_response(control() if control else {})

    app = web.Application(client_max_size=max_body_bytes)
    app.router.add_get("/v2/health/live", live)
    app.router.add_get("/v2/health/ready", ready)
    app.router.add_get("/metrics", metrics_handler(metrics))
    if control is not None:
        app.router.add_get("/v2/control", show_control)
    return app


@asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, *, setting: str = "http.port"
) -> AsyncIterator[str]:
    """Serves until left; gives the base URL. ``setting`` is where the port comes from.

    A caller that disconnects cancels its handler, which frees the work.

    Raises:
        StartError: the address cannot be listened on.
    """
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise StartError(
                f"cannot listen on {host}:{port}: {error.strerror}; "
                f"choose another port ({setting}), or 0 for any free one"
            ) from error
        bound = runner.addresses[0]
        yield f"http://{bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns our errors into the protocol's error body."""
    try:
        return await handler(request)
    except TierwiseError as error:
        headers = {}
        retry_after_ms = getattr(error, "retry_after_ms", 0.0)
        if retry_after_ms:
            headers["Retry-After"] = str(max(1, round(retry_after_ms / 1000)))
        return web.Response(
            status=public(error.code).http_status,
            body=encode_error(describe(error)),
            content_type="application/json",
            headers=headers,
        )
    except web.HTTPError as error:
        return web.Response(
            status=error.status,
            body=encode_error(f"{error.reason}: {request.method} {request.path}"),
            content_type="application/json",
        )
