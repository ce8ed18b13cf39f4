"""One HTTP request for model bytes, to somebody who may be hostile; what is wrong is named.

Rules of this file:
  * redirects are not followed, nothing is decompressed, no cookie is kept, no proxy is asked;
  * no more is read than was promised, and no slower than a minimum rate;
  * whatever ends it early is a ``TransferError`` with its ``Trouble``; what arrived until then has
    been given to the receiver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext

import aiohttp

from runtime.core.byte_ranges import Span, is_content_range
from runtime.core.mirrors import Trouble, retry_after_s, trouble_of_status
from runtime.core.pacing import RateFloor, TokenBucket
from runtime.errors import UnavailableError
from runtime.ports import Clock

Receive = Callable[[bytes], Awaitable[None]]


class TransferError(UnavailableError):
    """A request came to nothing; ``retry_after_s`` is what the other side asks to wait."""

    def __init__(self, trouble: Trouble, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.trouble, self.retry_after_s = trouble, retry_after_s


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How slow the other side may be, and how fast we read; None: as fast as it comes."""

    patience_s: float = 30.0
    min_bytes_per_s: float = 1024.0
    max_bytes_per_s: float | None = None


def client_session(tls: SSLContext | None = None) -> aiohttp.ClientSession:
    """A session as ``Transfer`` needs it; without ``tls`` certificates are checked as usual."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=16),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    )


class Transfer:
    """Requests over one session, with one pace for all of them."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: Clock, limits: TransferLimits | None = None
    ) -> None:
        self._session, self._clock = session, clock
        self._limits = limits or TransferLimits()
        self._bucket = TokenBucket(self._limits.max_bytes_per_s)
        self.received_bytes = 0

    async def file(self, url: str, sha256: str, span: Span, receive: Receive) -> None:
        """Gives the bytes from ``span.start`` on to ``receive``; the file ends at ``span.end``.

        Raises:
            TransferError: not all of them came; those that came may be those of another file.
        """
        headers = {"If-Match": f'"{sha256}"'}
        if span.start:
            headers["Range"] = f"bytes={span.start}-"
        async with self._reply("GET", url, headers) as (response, floor):
            _check_tag(response, sha256)
            skip = 0
            if response.status == 206:  # noqa: PLR2004 part of the file
                if not is_content_range(response.headers.get("Content-Range"), span, span.end):
                    raise TransferError(Trouble.WRONG_RANGE, "another part than was asked for")
            else:
                skip = span.start
            await self._body(response, floor, skip, span.length, receive)

    async def whole(self, url: str, max_bytes: int) -> bytes:
        """A body of at most so many bytes.

        Raises:
            TransferError: it is longer, or did not come.
        """
        body = bytearray()

        async def receive(piece: bytes) -> None:
            body.extend(piece)

        async with self._reply("GET", url, {}) as (response, floor):
            length = response.content_length
            if length is not None and length > max_bytes:
                raise TransferError(Trouble.TOO_LONG, f"{length} bytes, not {max_bytes} at most")
            await self._pieces(response, floor, max_bytes, receive)
            if length is not None and len(body) != length:
                raise TransferError(Trouble.CUT, f"{len(body)} bytes of {length}")
        return bytes(body)

    async def size_bytes(self, url: str, sha256: str) -> int:
        """The length of a file, as the other side says.

        Raises:
            TransferError: it does not say.
        """
        async with self._reply("HEAD", url, {"If-Match": f'"{sha256}"'}) as (response, _):
            _check_tag(response, sha256)
            if not response.content_length:
                raise TransferError(Trouble.WRONG_LENGTH, "no length is given")
            return response.content_length

    async def _body(
        self,
        response: aiohttp.ClientResponse,
        floor: RateFloor,
        skip: int,
        num_bytes: int,
        receive: Receive,
    ) -> None:
        """So many bytes after the first ``skip``, and then the end."""
        length, wanted = response.content_length, skip + num_bytes
        if length is not None and length != wanted:
            raise TransferError(Trouble.WRONG_LENGTH, f"{length} bytes are offered, not {wanted}")
        seen = 0

        async def keep(piece: bytes) -> None:
            nonlocal seen
            before, seen = seen, seen + len(piece)
            rest = piece[max(0, skip - before) :]
            if rest:
                await receive(rest)

        await self._pieces(response, floor, wanted, keep)
        if seen < wanted:
            raise TransferError(Trouble.CUT, f"{seen} bytes of {wanted}")

    async def _pieces(
        self, response: aiohttp.ClientResponse, floor: RateFloor, max_bytes: int, receive: Receive
    ) -> None:
        left = max_bytes
        while True:
            began_s = self._clock.monotonic_s()
            try:
                async with asyncio.timeout(floor.left_s):
                    piece = await response.content.read(self._bucket.chunk_bytes)
            except TimeoutError as error:
                raise TransferError(Trouble.STALLED, "too few bytes a second") from error
            except aiohttp.ClientError as error:
                raise TransferError(Trouble.CUT, f"the connection ended: {error}") from error
            if not piece:
                return
            now_s = self._clock.monotonic_s()
            self.received_bytes += len(piece)
            if len(piece) > left:
                raise TransferError(Trouble.TOO_LONG, f"more than {max_bytes} bytes")
            left -= len(piece)
            is_fast_enough = floor.heard(len(piece), now_s - began_s)
            await receive(piece)
            if not is_fast_enough:
                raise TransferError(Trouble.STALLED, "too few bytes a second")
            await asyncio.sleep(self._bucket.take(len(piece), now_s))

    @asynccontextmanager
    async def _reply(
        self, method: str, url: str, headers: dict[str, str]
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, RateFloor]]:
        floor = RateFloor(
            patience_s=self._limits.patience_s, min_bytes_per_s=self._limits.min_bytes_per_s
        )
        began_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(floor.left_s):
                response = await self._session.request(
                    method, url, headers=headers, allow_redirects=False
                )
        except TimeoutError as error:
            raise TransferError(Trouble.STALLED, "no reply in time") from error
        except aiohttp.ClientResponseError as error:
            raise TransferError(Trouble.UNEXPECTED, f"no HTTP reply: {error.message}") from error
        except aiohttp.InvalidURL as error:
            raise TransferError(Trouble.UNEXPECTED, f"{url!r} is no URL") from error
        except aiohttp.ClientError as error:
            raise TransferError(Trouble.UNREACHABLE, f"no connection: {error}") from error
        try:
            floor.heard(0, self._clock.monotonic_s() - began_s)
            _check_head(response)
            yield response, floor
        finally:
            # Whatever has not been read stays unread: the connection goes with it.
            response.close()


def _check_head(response: aiohttp.ClientResponse) -> None:
    trouble = trouble_of_status(response.status)
    if trouble is not None:
        wait_s = retry_after_s(response.headers.get("Retry-After", ""))
        if trouble is Trouble.BUSY and not wait_s:
            trouble = Trouble.SERVER_FAILED
        raise TransferError(trouble, f"status {response.status}", retry_after_s=wait_s)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TransferError(Trouble.UNEXPECTED, "the body is encoded, which was not asked for")
    if response.content_type in {"text/html", "application/xhtml+xml"}:
        raise TransferError(Trouble.PAGE, "a page for people: is there a portal in between?")


def _check_tag(response: aiohttp.ClientResponse, sha256: str) -> None:
    tag = response.headers.get("ETag")
    # A static file server has tags of its own; 64 hexadecimal digits are meant as a digest.
    if tag is not None and len(tag) == len(sha256) + 2 and tag != f'"{sha256}"':
        raise TransferError(Trouble.OTHER_FILE, f"the file is said to be {tag[:80]}")
