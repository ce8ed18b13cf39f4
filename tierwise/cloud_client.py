"""Asks the operators' port of the cloud tier: JSON over HTTP, and its streams of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp

from runtime.codec import decode_request
from runtime.errors import StartError, TierwiseError
from runtime.messages import Tensors
from tierwise.cli.parser import UsageError

TIMEOUT_S = 30.0
# The service says something at least so often.
_SILENT_S = 60.0
_TRIES, _PAUSE_S = 5, 1.0
_BAD_REQUEST, _NOT_FOUND = 400, 404
_MAX_LINE_BYTES = 4 << 20


class ServiceError(TierwiseError):
    """The service says no; the text is its own."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # it is the service's


class Happened(NamedTuple):
    """An event of a stream."""

    name: str
    value: dict[str, Any]


class CloudClient:
    """An asynchronous context manager; ``url`` is the base of the port, ``token`` opens it."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            read_bufsize=_MAX_LINE_BYTES, headers={"Authorization": f"Bearer {token}"}
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: object) -> dict[str, Any]:
        """What is there.

        Raises:
            ServiceError: the service says no.
            StartError: nobody answers, or somebody else does.
            UsageError: the service does not understand it.
        """
        return await self._ask("GET", path, params={key: str(one) for key, one in query.items()})

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What has become of it; raises as ``get`` does."""
        return await self._ask("POST", path, json=body)

    async def inputs(self, path: str) -> Tensors:
        """Inputs that are told as an Open Inference Protocol request; raises as ``get`` does."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.get(f"{self._url}{path}", timeout=timeout) as response:
                await self._check(response)
                length = int(response.headers.get("Inference-Header-Content-Length", "0"))
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._nobody(error) from error
        return decode_request(body, length).inputs

    async def events(self, path: str) -> AsyncIterator[Happened]:
        """Everything until the service ends it; a connection that is lost is made again."""
        last, tries = "0", 0
        while True:
            try:
                async for number, event in self._stream(path, last):
                    last, tries = number or last, 0
                    yield event
                    if event.name == "end":
                        return
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                tries += 1
                if tries >= _TRIES:
                    raise self._nobody(error) from error
            await asyncio.sleep(_PAUSE_S)

    async def _stream(self, path: str, last: str) -> AsyncIterator[tuple[str, Happened]]:
        timeout = aiohttp.ClientTimeout(total=None, connect=TIMEOUT_S, sock_read=_SILENT_S)
        async with self._session.get(
            f"{self._url}{path}", headers={"Last-Event-ID": last}, timeout=timeout
        ) as response:
            await self._check(response)
            fields: dict[str, str] = {}
            async for line in response.content:
                text = line.decode().rstrip("\n")
                if text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    value = json.loads(fields["data"])
                    yield fields.get("id", ""), Happened(fields.get("event", ""), value)
                    fields = {}
                else:
                    fields = {}

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - aiohttp's
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.request(
                method, f"{self._url}{path}", timeout=timeout, **more
            ) as response:
                await self._check(response)
                found = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._nobody(error) from error
        if not isinstance(found, dict):
            raise self._stranger()
        return found

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.ok:
            return
        try:
            said = json.loads(await response.text())["error"]
            code, text = str(said["code"]), str(said["message"])
        except (ValueError, LookupError, TypeError):
            raise self._stranger() from None
        if response.status == _BAD_REQUEST:
            raise UsageError(text)
        raise ServiceError(text, code)

    def _nobody(self, error: Exception) -> StartError:
        return StartError(
            f"no answer from the cloud tier at {self._url}: {error or type(error).__name__}; is it "
            "running? --operator names the file in its state folder that says where it is"
        )

    def _stranger(self) -> StartError:
        return StartError(
            f"{self._url} has no such thing: is it the operators' port of a cloud tier of this "
            "version; for rollouts and experiments, is rollouts.key_file set there; and for "
            "fleets, is telemetry.enabled set there?"
        )
