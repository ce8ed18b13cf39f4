"""A receiver of webhooks behind real HTTP; what it answers can be changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from runtime.adapters.http_server import serving


@dataclass
class Receiver:
    """What has arrived; ``statuses`` are answered first, one each, before 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    location: str = ""
    said: list[dict[str, Any]] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [one["what"] for one in self.said]

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.said.append(msgspec.json.decode(body))
            self.bodies.append(body)
            self.signatures.append(request.headers.get("X-Tierwise-Signature", ""))
        headers = {"Location": self.location} if self.location else {}
        return web.Response(status=status, headers=headers)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    async with serving(app, "127.0.0.1", 0) as url:
        receiver.url = f"{url}/hook"
        yield receiver
