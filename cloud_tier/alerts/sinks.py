"""Where notices go: webhooks and the broker.

Rules of this file:
  * a webhook gets one POST with a JSON body; ``X-Tierwise-Signature: sha256=...`` is the HMAC
    (SHA-256) of the body with a secret that both know, so that a receiver knows who speaks;
  * a redirect to another host is not followed: what is told is told to whom was named, and nobody
    else; one on the same host is followed once;
  * a sink that fails is told again, later each time, and given up after ``MAX_TRIES``.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
from yarl import URL

from cloud_tier.alerts.remedies import remedy
from runtime import topics
from runtime.core.alerts import Notice, What
from runtime.errors import NotConnectedError, PayloadTooLargeError, StartError
from runtime.ports import Message, MessageBus

TIMEOUT_S = 10.0
MAX_TRIES = 8
_MIN_SECRET_BYTES, _MAX_SECRET_BYTES = 16, 4096
_OK, _REDIRECTS = range(200, 300), (307, 308)


class Sink(Protocol):
    """Takes notices; ``name`` is its own among all."""

    name: str

    async def tell(self, notice: Notice, *, is_test: bool = False) -> str:
        """Empty when it has it, else why not, in words."""
        ...


class Told(msgspec.Struct, frozen=True):
    """The body of a webhook, and of an alert's message."""

    what: str
    key: str
    kind: str
    severity: str
    region: str
    site: str
    summary: str
    detail: str
    remedy: str
    since_s: float
    at_s: float
    test: bool = False


def told(notice: Notice, *, is_test: bool = False) -> bytes:
    """A notice as JSON."""
    one = notice.condition
    return msgspec.json.encode(
        Told(
            notice.what.value,
            notice.key,
            one.kind,
            one.severity.value,
            one.region,
            one.site,
            one.summary,
            one.detail,
            remedy(one),
            notice.since_s,
            notice.at_s,
            is_test,
        )
    )


def signature(secret: bytes, body: bytes) -> str:
    """What a receiver compares, in constant time."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def read_secret(path: str) -> bytes:
    """The secret of a file, without the white space around it; empty where none is named.

    Raises:
        StartError: it cannot be read, or is too short to be one.
    """
    if not path:
        return b""
    try:
        with Path(path).open("rb") as file:
            secret = file.read(_MAX_SECRET_BYTES + 1).strip()
    except OSError as error:
        raise StartError(
            f"alerts.webhook_secret_file {path} cannot be read: {error.strerror}"
        ) from error
    if not _MIN_SECRET_BYTES <= len(secret) <= _MAX_SECRET_BYTES:
        raise StartError(
            f"alerts.webhook_secret_file {path} has to hold {_MIN_SECRET_BYTES} to "
            f"{_MAX_SECRET_BYTES} bytes: `openssl rand -hex 32` makes some"
        )
    return secret


class Webhook:
    """Implements ``Sink`` by a POST."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: bytes) -> None:
        self._session, self._url, self._secret = session, URL(url), secret
        # The host alone: a path may be a secret, and names are in logs.
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        self.name = f"webhook {self._url.host}:{self._url.port} {digest}"

    async def tell(self, notice: Notice, *, is_test: bool = False) -> str:
        """See the port."""
        body = told(notice, is_test=is_test)
        headers = {"Content-Type": "application/json"}
        if self._secret:
            headers["X-Tierwise-Signature"] = signature(self._secret, body)
        url = self._url
        try:
            for _ in range(2):
                async with self._session.post(
                    url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                ) as response:
                    if response.status in _OK:
                        return ""
                    if response.status not in _REDIRECTS:
                        return f"it answers {response.status}"
                    url = url.join(URL(response.headers.get("Location", "")))
                if url.origin() != self._url.origin():
                    return "it redirects to another host, which is not told"
        except TimeoutError:
            return f"it does not answer within {TIMEOUT_S:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"it cannot be asked: {str(error)[:200] or type(error).__name__}"
        return "it redirects again and again"


class AlertTopics:
    """Implements ``Sink`` by retained messages: there while an alert fires, cleared at its end."""

    name = "mqtt"

    def __init__(self, bus: MessageBus, region: str) -> None:
        self._bus, self._region = bus, region

    async def tell(self, notice: Notice, *, is_test: bool = False) -> str:
        """See the port; a test is not retained."""
        is_over = notice.what is What.RECOVERED
        try:
            self._bus.publish(
                Message(
                    topic=topics.alert(self._region, notice.key),
                    payload=b"" if is_over else told(notice, is_test=is_test),
                    qos=1,
                    retain=not is_test,
                    content_type="application/json",
                )
            )
        except (NotConnectedError, PayloadTooLargeError) as error:
            return f"the broker does not take it: {error}"
        return ""
