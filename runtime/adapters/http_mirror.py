"""A repository of signed models behind HTTP: the gateway's mirror, or several, one after another.

    metadata/timestamp.json  ->  GET <base>/updates/metadata/timestamp.json

Rules of this file:
  * a file is read as a whole before the first piece is given out, so that one that breaks off is
    asked of the next mirror, and no two mirrors' halves are put together;
  * the mirror that answered last is asked first: a catalogue is best read from one place;
  * that a mirror has no such file is believed only when all were asked that answer;
  * waiting and trying again are bounded (``runtime.core.mirrors``).
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable, Iterator, Sequence

from runtime.adapters.backoff import Backoff
from runtime.adapters.clock import SystemClock
from runtime.adapters.http_get import GetError, GetLimits, HttpServer
from runtime.core.mirrors import Mirrors, Patience, Trouble
from runtime.core.update_paths import is_document_path
from runtime.errors import FetchError, MissingFileError, StartError
from runtime.logs import get_logger
from runtime.ports import Clock

PIECE_BYTES = 1 << 16
MAX_WAIT_S = 30.0
PATIENCE = Patience(tries=2, rounds=1, busy_waits=3)


class HttpMirror:
    """Implements ``runtime.ports_files.Mirror``; blocks, and is for one thread at a time.

    Args:
        base_urls: of gateways, such as ``http://gateway:8471``; asked in this order.
        clock: for rates and deadlines.
        limits: of one request.
        tls: certificates; None: those of the system.
        patience: how often, over all mirrors, for one file.
        wait: sleeps so many seconds; one that returns early ends a wait early.

    Raises:
        StartError: there is no URL, or one is none.
    """

    def __init__(
        self,
        base_urls: Sequence[str],
        *,
        clock: Clock | None = None,
        limits: GetLimits | None = None,
        tls: ssl.SSLContext | None = None,
        patience: Patience = PATIENCE,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        if not base_urls:
            raise StartError("no mirror is named: give the address of a gateway's HTTP port")
        clock = clock or SystemClock()
        self._servers = [HttpServer(url, clock, limits, tls) for url in base_urls]
        self._patience, self._wait = patience, wait
        self._log = get_logger()

    @property
    def first(self) -> str:
        """The base URL that is asked first now."""
        return self._servers[0].url

    def pass_over(self) -> None:
        """Asks the first mirror last from now on: what it sends does not verify."""
        self._servers = [*self._servers[1:], self._servers[0]]

    def read(self, path: str) -> Iterator[bytes]:
        """See the port."""
        if not is_document_path(path):
            raise MissingFileError(f"no mirror has {path!r}: documents have other names")
        contents = self._fetched(path)
        for at in range(0, len(contents), PIECE_BYTES):
            yield contents[at : at + PIECE_BYTES]

    def _fetched(self, path: str) -> bytes:
        servers = self._servers
        plan = Mirrors(len(servers), self._patience)
        backoff = Backoff(min_s=0.1, max_s=2.0, random=random.Random())  # noqa: S311 - spreads load
        said: dict[str, str] = {}
        is_missing = False
        step = plan.first
        while True:
            server = servers[step.mirror]
            try:
                contents = server.get(f"/updates/{path}")
            except GetError as error:
                self._log.info("document.not_fetched", url=server.url, path=path, error=str(error))
                said[server.url] = str(error)
                is_missing = is_missing or error.trouble is Trouble.WITHHELD
                following = plan.after(error.trouble, 0)
                if following is None:
                    break
                if following.waits:
                    self._wait(min(MAX_WAIT_S, max(backoff.next_s(), error.retry_after_s)))
                step = following
            else:
                self._servers = servers[step.mirror :] + servers[: step.mirror]
                return contents
        answers = "; ".join(f"{url}: {what}" for url, what in said.items())
        if is_missing:
            raise MissingFileError(f"no mirror has {path} ({answers})")
        raise FetchError(f"{path} cannot be fetched from any mirror ({answers}): try again later")
