"""``tierwise control``: what is stopped in a region, and who has heard of it."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import msgspec

from runtime.common_settings import LogSettings
from runtime.core.control import next_sequence, told, with_stop, without_stops
from runtime.logs import configure_logs
from runtime.messages import ControlState, Stop, StopMode, StopScope
from tierwise.cli.output import say, say_json
from tierwise.cli.parser import UsageError
from tierwise.control_desk import check_regions, in_all, login, tell_doubts, tell_known

NOT_STOPPED = "nothing of that kind is stopped"


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says in each region, and tells how it stands."""
    _check(arguments)
    # What the connection logs itself, the result says better.
    configure_logs(LogSettings(level="error", format="console"))

    def wanted(region: str, before: ControlState | None) -> ControlState | None:
        return _wanted(arguments, region, before)

    results = asyncio.run(in_all(arguments, wanted, NOT_STOPPED))
    if arguments.json:
        say_json({"regions": results})
    else:
        for result in results:
            _tell(result)
        tell_doubts(results)
    return 0 if all(result["is_done"] for result in results) else 1


def _check(arguments: argparse.Namespace) -> None:
    check_regions(arguments)
    if arguments.what == "status":
        return
    if not arguments.why.strip():
        raise UsageError("--why needs a reason: it is shown wherever this costs an answer")
    if arguments.what == "resume" and arguments.everything == (arguments.scope is not None):
        raise UsageError("say what is resumed: --scope with its --target, or --everything")
    if arguments.scope is not None and (arguments.scope == "all") != (not arguments.target):
        raise UsageError(
            "--scope all takes no --target"
            if arguments.target
            else f"--scope {arguments.scope} needs a --target"
        )


def _wanted(
    arguments: argparse.Namespace, region: str, before: ControlState | None
) -> ControlState | None:
    """The state that is to be; None where there is nothing to resume."""
    now_s = time.time()
    sequence = next_sequence(before, now_s)
    by = (arguments.by or login())[:128]
    if arguments.what == "kill":
        scope, mode = StopScope(arguments.scope), StopMode(arguments.mode)
        stop = Stop(scope, mode, arguments.why[:500], by, now_s, arguments.target[:128])
        return with_stop(before, region, stop, sequence=sequence)
    named = arguments.scope, arguments.target
    stops = [
        stop
        for stop in (before.stops if before else ())
        if arguments.everything or (stop.scope, stop.target) == named
    ]
    if before is None or not stops:
        return None
    return without_stops(before, stops, sequence=sequence, by=by, why=arguments.why[:500])


def _tell(result: dict[str, Any]) -> None:
    stops = msgspec.convert(result["stops"], tuple[Stop, ...])
    if not stops:
        say(f"{result['region']}: nothing is stopped")
    for stop in stops:
        say(f"{result['region']}: {told(stop)}")
    tell_known(result)
