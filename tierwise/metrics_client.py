"""Asks the cloud tier about telemetry: records for a notebook, a script or a report.

    client = MetricsClient.of("state/cloud/operator.json")
    pandas.DataFrame(client.escalations(since="7d", by=["region", "hour"]))

``MetricsClient`` waits, also inside a notebook; ``AsyncMetricsClient`` has the same methods to be
awaited. Each returns a list of flat dictionaries, of all pages up to ``limit``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from runtime.errors import RequestError, StartError, TierwiseError
from tierwise.operator_access import access_in

DEFAULT_URL = "http://127.0.0.1:8473"
MAX_BODY_BYTES = 256 << 20
_PAGE = 5000
_OK, _BAD_REQUEST = 200, 400
Record = dict[str, Any]
Where = str | Mapping[str, str | Sequence[str]]


class MetricsError(TierwiseError):
    """The service says no; the text is its own."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # it is the service's


class MetricsClient:
    """Asks and waits; safe to use from several threads.

    Args:
        url: base of the cloud tier's port for operators.
        token: what opens it; sent as ``Authorization: Bearer``.
        timeout_s: of one page.

    Raises:
        ValueError: ``url`` is none of http:// or https://.
    """

    def __init__(self, url: str = DEFAULT_URL, *, token: str = "", timeout_s: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url[:80]!r} is no http:// or https:// URL")
        self.url = url.rstrip("/")
        self._parts, self._token, self._timeout_s = parts, token, timeout_s

    @classmethod
    def of(cls, path: str | Path, *, timeout_s: float = 30.0) -> Self:
        """A client of the cloud tier that has written this operator.json.

        Raises:
            StartError: there is no such file, or it is none.
        """
        access = access_in(path)
        return cls(access.url, token=access.token, timeout_s=timeout_s)

    def escalations(self, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``records``
        """Who answers, and what climbs; words and errors as ``records`` has them."""
        return self.records("escalations", **words)

    def latency(self, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``records``
        """Latencies in ms, and the share of late answers."""
        return self.records("latency", **words)

    def accuracy(self, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``records``
        """Accuracy by feedback and by audits, with 95 % intervals."""
        return self.records("accuracy", **words)

    def cost(self, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``records``
        """Cost, bytes sent up and time of models."""
        return self.records("cost", **words)

    def agreement(self, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``records``
        """How often the top tier agrees with answers from below."""
        return self.records("agreement", **words)

    def rollouts(self, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``records``
        """What each version does over time."""
        return self.records("rollouts", **words)

    def fleet(self, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``records``
        """Sites: when they were heard, what they run, what is missing."""
        return self.records("fleet", **words)

    def records(
        self,
        metric: str,
        *,
        since: str | float = "",
        until: str | float = "",
        by: str | Sequence[str] = (),
        where: Where = "",
        order: str = "",
        limit: int = 0,
    ) -> list[Record]:
        """All rows of an answer as flat dictionaries.

        Args:
            metric: its name.
            since: ``1h``, ``7d``, a date and time with its offset, or s since 1970 (default: 24h).
            until: the same (default: now).
            by: dimensions, as a list or comma-separated.
            where: ``region=eu,label=3|4`` or ``{"region": "eu", "label": ["3", "4"]}``.
            order: a field of the rows, with ``-`` for the largest first.
            limit: rows at most; 0: all.

        Raises:
            RequestError: the question is not understood; the text names what is near.
            MetricsError: the service says no.
            StartError: nobody answers, or somebody else does.
        """
        words = question_words(since, until, by, where, order)
        found: list[Record] = []
        while True:
            size = min(_PAGE, limit - len(found)) if limit else _PAGE
            report = self.report(metric, {**words, "limit": str(size)})
            found += flat(report)
            words["cursor"] = report.get("next", "")
            if not words["cursor"] or (limit and len(found) >= limit):
                return found

    def report(self, metric: str, words: Mapping[str, str]) -> dict[str, Any]:
        """One page as the service has it; raises as ``records`` does."""
        query = urlencode({name: value for name, value in words.items() if value})
        path = f"{self._parts.path.rstrip('/')}/api/v1/metrics/{quote(metric, safe='')}?{query}"
        status, body = self._get(path)
        try:
            found = json.loads(body)
            if status == _OK:
                return dict(found)
            code, text = str(found["error"]["code"]), str(found["error"]["message"])
        except (ValueError, LookupError, TypeError):
            raise self._stranger(status) from None
        if status == _BAD_REQUEST:
            raise RequestError(text)
        raise MetricsError(text, code)

    def _get(self, path: str) -> tuple[int, bytes]:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout_s)
            try:
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                body = response.read(MAX_BODY_BYTES)
            finally:
                connection.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise StartError(
                f"no answer from the cloud tier at {self.url}: {error or type(error).__name__}; "
                "is it running? --url says where it is; for escalations and latency, --state DIR "
                "asks decision logs of this machine"
            ) from error
        return response.status, body

    def _stranger(self, status: int) -> StartError:
        return StartError(
            f"{self.url} has no telemetry (HTTP {status}): is it the cloud tier, has it the extra "
            "`cloud` and telemetry.enabled, and is its http.host this machine's own?"
        )


class AsyncMetricsClient:
    """The same methods as ``MetricsClient``, to be awaited."""

    def __init__(self, url: str = DEFAULT_URL, *, token: str = "", timeout_s: float = 30.0) -> None:
        self._client = MetricsClient(url, token=token, timeout_s=timeout_s)

    async def records(self, metric: str, **words: Any) -> list[Record]:  # noqa: ANN401 - those of ``MetricsClient.records``
        """All rows of an answer."""
        return await asyncio.to_thread(self._client.records, metric, **words)

    @classmethod
    def of(cls, path: str | Path, *, timeout_s: float = 30.0) -> Self:
        """A client of the cloud tier that has written this operator.json.

        Raises:
            StartError: there is no such file, or it is none.
        """
        access = access_in(path)
        return cls(access.url, token=access.token, timeout_s=timeout_s)

    async def escalations(self, **words: Any) -> list[Record]:  # noqa: ANN401 - as above
        """Who answers, and what climbs."""
        return await self.records("escalations", **words)

    async def latency(self, **words: Any) -> list[Record]:  # noqa: ANN401 - as above
        """Latencies in ms, and the share of late answers."""
        return await self.records("latency", **words)

    async def accuracy(self, **words: Any) -> list[Record]:  # noqa: ANN401 - as above
        """Accuracy by feedback and by audits, with 95 % intervals."""
        return await self.records("accuracy", **words)

    async def cost(self, **words: Any) -> list[Record]:  # noqa: ANN401 - as above
        """Cost, bytes sent up and time of models."""
        return await self.records("cost", **words)

    async def agreement(self, **words: Any) -> list[Record]:  # noqa: ANN401 - as above
        """How often the top tier agrees with answers from below."""
        return await self.records("agreement", **words)

    async def rollouts(self, **words: Any) -> list[Record]:  # noqa: ANN401 - as above
        """What each version does over time."""
        return await self.records("rollouts", **words)

    async def fleet(self, **words: Any) -> list[Record]:  # noqa: ANN401 - as above
        """Sites: when they were heard, what they run, what is missing."""
        return await self.records("fleet", **words)


def question_words(
    since: str | float, until: str | float, by: str | Sequence[str], where: Where, order: str
) -> dict[str, str]:
    """A question as the service takes it."""
    if not isinstance(where, str):
        pairs = (
            (name, one if isinstance(one, str) else "|".join(one)) for name, one in where.items()
        )
        where = ",".join(f"{name}={values}" for name, values in pairs)
    words = {
        "since": str(since),
        "until": str(until),
        "by": by if isinstance(by, str) else ",".join(by),
        "where": where,
        "order": order,
    }
    return {name: value for name, value in words.items() if value}


def flat(report: Mapping[str, Any]) -> list[Record]:
    """The rows of a page, each with its group as fields of its own."""
    return [
        {**row["group"], **{name: value for name, value in row.items() if name != "group"}}
        for row in report["rows"]
    ]
