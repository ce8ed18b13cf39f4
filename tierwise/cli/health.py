"""``tierwise health``: is a running process ready? For probes that can only run a command."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from tierwise.cli.output import note, say, say_json
from tierwise.cli.types import add_json, http_url

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

_MAX_BYTES = 4096
_OK = 200
_PAUSE_S = 0.1


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    text = "whether a running agent, gateway or cloud is ready"
    parser = subparsers.add_parser(
        "health",
        help=text,
        description=f"Says {text}. Exit code 1 when it is not. For probes of containers.",
    )
    parser.add_argument("--url", type=http_url, required=True, help="its HTTP port")
    parser.add_argument(
        "--timeout-s", type=float, default=3.0, help="how long to wait for an answer"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="ask again for so long, until it is ready: after a start",
    )
    add_json(parser)
    parser.set_defaults(run=_health)


def _health(arguments: argparse.Namespace) -> int:
    url = f"{arguments.url.rstrip('/')}/v2/health/ready"
    until_s = time.monotonic() + arguments.wait
    status, detail = _ask(url, arguments.timeout_s)
    while status != _OK and time.monotonic() < until_s:
        time.sleep(_PAUSE_S)
        status, detail = _ask(url, arguments.timeout_s)
    is_ready = status == _OK
    stopped = ""
    if is_ready and detail.startswith("{"):
        # It answers, but an operator has stopped what it does. What it says is no matter of health.
        with contextlib.suppress(ValueError, RecursionError):
            stopped = str(json.loads(detail).get("mode", ""))
    if arguments.json:
        said = {"ready": is_ready, "status": status, "stopped": stopped, "url": arguments.url}
        say_json(said | ({} if is_ready else {"detail": detail}))
    elif is_ready:
        say("ready" if not stopped else f"ready, and stopped by an operator: {stopped}")
    else:
        note(f"tierwise: not ready: {detail or f'HTTP status {status}'}")
    return 0 if is_ready else 1


def _ask(url: str, timeout_s: float) -> tuple[int, str]:
    """The status and the body, or 0 and what went wrong."""
    # Nobody in between: a proxy of the environment cannot reach this machine's own ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as response:
            return response.status, response.read(_MAX_BYTES).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MAX_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{url} does not answer: {error}"
