"""HTTP routes that hand out model files by digest, their metadata, and deltas between them.

    GET, HEAD /updates/blobs/<sha256>                   Range (one), If-Match, If-None-Match
    GET, HEAD /updates/metadata/<name>.json             as published
    GET, HEAD /updates/targets/<path>                   as published
    GET       /updates/deltas/<old sha256>/<new sha256>  404 with the reason where there is none

Rules of this file:
  * bytes leave through one token bucket in small chunks, so that inference beside them stays quick;
    beyond ``max_transfers`` the answer is 503 with Retry-After;
  * documents have places of their own, so that metadata does not wait for models;
  * whoever does not take what is sent for ``write_timeout_s`` is cut off;
  * names are matched as a whole; what does not match is 404 before anything is opened.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry

from runtime.adapters.delta_maker import DeltaMaker
from runtime.adapters.transfer_metrics import FileKind, TransferFailure, TransferMetrics
from runtime.core.byte_ranges import Span, content_range, matches, parse_range
from runtime.core.pacing import MIN_RETRY_S, Places, TokenBucket
from runtime.core.update_paths import is_document_path
from runtime.errors import OverloadedError, StorageError, TierwiseError, public
from runtime.logs import get_logger
from runtime.ports import Clock
from runtime.ports_updates import OpenBlob, Repository

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BLOCK_BYTES = 256 * 1024
# Requests that wait for a file to arrive here, or are being served.
MAX_REQUESTS = 1024
DOCUMENT_PLACES = 32
_UNAVAILABLE = 502
_REFUSED: dict[int, TransferFailure] = {503: "busy", _UNAVAILABLE: "unavailable"}
_DIGEST = "[0-9a-f]{64}"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """``max_bytes_per_s`` is of all transfers together; None: no limit."""

    max_bytes_per_s: float | None = None
    max_transfers: int = 8
    write_timeout_s: float = 30.0


class BlobServer:
    """Serves a repository; without ``deltas`` there are none."""

    def __init__(
        self,
        repository: Repository,
        clock: Clock,
        limits: ServerLimits | None = None,
        deltas: DeltaMaker | None = None,
        *,
        metrics: TransferMetrics | None = None,
    ) -> None:
        self._metrics = metrics or TransferMetrics("tierwise", CollectorRegistry())
        self._repository, self._clock, self._deltas = repository, clock, deltas
        self._limits = limits or ServerLimits()
        rate = self._limits.max_bytes_per_s
        self._bucket = TokenBucket(rate)
        self._files = Places(self._limits.max_transfers, rate)
        self._documents = Places(DOCUMENT_PLACES, rate)
        self._num_requests = 0
        self._log = get_logger()
        self.sent_bytes = 0

    def add_routes(self, app: web.Application) -> None:
        """Adds the routes to an application."""
        add = app.router.add_get
        add(f"/updates/blobs/{{sha256:{_DIGEST}}}", self._guarded("blob", self._blob))
        add("/updates/{path:(?:metadata|targets)/.+}", self._guarded("document", self._document))
        deltas = f"/updates/deltas/{{old:{_DIGEST}}}/{{new:{_DIGEST}}}"
        add(deltas, self._guarded("delta", self._delta), allow_head=False)

    def _guarded(self, file: FileKind, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = await answer(request)
            self._metrics.count_request(file, response.status)
            if response.status in _REFUSED:
                self._metrics.count_failure(file, _REFUSED[response.status])
            return response

        async def answer(request: web.Request) -> web.StreamResponse:
            if self._num_requests >= MAX_REQUESTS:
                return _busy(MIN_RETRY_S)
            self._num_requests += 1
            try:
                return await handler(request)
            except OverloadedError as error:
                return _busy(error.retry_after_ms / 1000)
            except TierwiseError as error:
                self._log.warning("update.not_served", path=request.path, error=str(error))
                shown = public(error.code)
                # 503 would say that it is worth while to wait here rather than ask elsewhere.
                is_no_use = shown.http_status == 503  # noqa: PLR2004
                return _text(_UNAVAILABLE if is_no_use else shown.http_status, shown.text)
            finally:
                self._num_requests -= 1

        return handle

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        async with self._repository.open(sha256) as blob:
            if blob is None:
                return _text(404, "no such file is known here")
            headers = {"Cache-Control": "public, max-age=31536000, immutable"}
            return await self._reply(request, blob, headers, "blob", tag=sha256)

    async def _document(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        contents = await self._repository.document(path) if is_document_path(path) else None
        if contents is None:
            return _text(404, "no such document is known here")
        headers = {"Cache-Control": "no-cache"}
        return await self._reply(request, _Bytes(contents), headers, "document")

    async def _delta(self, request: web.Request) -> web.StreamResponse:
        if self._deltas is None:
            return _text(404, "no deltas are made here: fetch the full file")
        old, new = request.match_info["old"], request.match_info["new"]
        async with self._deltas.open(old, new) as found:
            if isinstance(found, str):
                return _text(404, found)
            return await self._reply(request, found, {"Cache-Control": "no-cache"}, "delta")

    async def _reply(
        self,
        request: web.Request,
        blob: OpenBlob,
        headers: dict[str, str],
        file: FileKind,
        *,
        tag: str = "",
    ) -> web.StreamResponse:
        span, status = Span(0, blob.size_bytes), 200
        headers["Content-Type"] = "application/octet-stream"
        if tag:
            headers |= {"ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
            if "If-Match" in request.headers and not matches(request.headers["If-Match"], tag):
                return _text(412, "the file has another digest")
            if matches(request.headers.get("If-None-Match"), tag):
                return web.Response(status=304, headers=headers)
            if request.method == "GET":
                try:
                    part = parse_range(request.headers.get("Range"), blob.size_bytes)
                except ValueError:
                    headers["Content-Range"] = f"bytes */{blob.size_bytes}"
                    return web.Response(status=416, headers=headers)
                if part is not None:
                    span, status = part, 206
                    headers["Content-Range"] = content_range(span, blob.size_bytes)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = span.length
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        await self._transfer(request, response, blob, span, file)
        return response

    async def _transfer(
        self,
        request: web.Request,
        response: web.StreamResponse,
        blob: OpenBlob,
        span: Span,
        file: FileKind,
    ) -> None:
        places = self._documents if file == "document" else self._files
        place = places.enter(span.length)

        def moved(num_bytes: int) -> None:
            places.moved(place, num_bytes)
            self._metrics.add_sent(file, num_bytes)

        try:
            await response.prepare(request)
            await self._send(response, blob, span, moved)
        except (StorageError, TimeoutError) as error:
            # The head is out: only a cut connection says that the rest does not follow.
            self._log.warning("transfer.cut", path=request.path, error=str(error) or "stalled")
            self._metrics.count_failure(file, "cut")
            _cut(request)
        except ConnectionResetError:
            self._log.debug("transfer.left", path=request.path)
            self._metrics.count_failure(file, "left")
        except asyncio.CancelledError:
            # How aiohttp says that whoever asked is gone.
            self._metrics.count_failure(file, "left")
            raise
        finally:
            places.leave(place)

    async def _send(
        self,
        response: web.StreamResponse,
        blob: OpenBlob,
        span: Span,
        moved: Callable[[int], None],
    ) -> None:
        for start in range(span.start, span.end, BLOCK_BYTES):
            length = min(BLOCK_BYTES, span.end - start)
            block = memoryview(await blob.read(start, length))
            if len(block) != length:
                raise StorageError("a file has become shorter")
            size = self._bucket.chunk_bytes
            for at in range(0, length, size):
                chunk = block[at : at + size]
                await asyncio.sleep(self._bucket.take(len(chunk), self._clock.monotonic_s()))
                async with asyncio.timeout(self._limits.write_timeout_s):
                    await response.write(chunk)
                moved(len(chunk))
                self.sent_bytes += len(chunk)


class _Bytes:
    """A document as a file that is open."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents

    @property
    def size_bytes(self) -> int:
        return len(self._contents)

    async def read(self, offset_bytes: int, limit_bytes: int) -> bytes:
        return self._contents[offset_bytes : offset_bytes + limit_bytes]


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers={"Cache-Control": "no-store"})


def _busy(retry_after_s: float) -> web.Response:
    response = _text(503, "others are served first: come again later")
    response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
