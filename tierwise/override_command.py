"""``tierwise override``: what is overridden in a region, and who has heard of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from typing import Any

import msgspec

from runtime.common_settings import LogSettings
from runtime.control_state import ControlState, Override, OverrideKind
from runtime.core.control import next_sequence
from runtime.core.overrides import notice_of, with_override, without_overrides
from runtime.logs import configure_logs
from runtime.messages import ContextValue, StopScope, Tier
from tierwise.cli.output import say, say_json
from tierwise.cli.parser import UsageError
from tierwise.control_desk import check_regions, in_all, login, tell_doubts, tell_known

NOT_THERE = "no override has this id"


def run(arguments: argparse.Namespace) -> int:
    """Does what the command line says in each region, and tells how it stands."""
    check_regions(arguments)
    # Made before anybody is connected to: what is wrong with it is said at once.
    override = None if arguments.what in ("list", "remove") else override_of(arguments)
    configure_logs(LogSettings(level="error", format="console"))

    def wanted(region: str, before: ControlState | None) -> ControlState | None:
        sequence = next_sequence(before, time.time())
        if override is not None:
            return with_override(before, region, override, sequence=sequence)
        ids = {one.id for one in before.overrides} if before else set()
        if before is None or not ids & set(arguments.id):
            return None
        by = (arguments.by or login())[:128]
        return without_overrides(
            before, arguments.id, sequence=sequence, by=by, why=arguments.why[:500]
        )

    results = asyncio.run(in_all(arguments, wanted, NOT_THERE))
    if arguments.json:
        say_json({"regions": results})
    else:
        for result in results:
            _tell(result)
        tell_doubts(results)
    return 0 if all(result["is_done"] for result in results) else 1


def override_of(arguments: argparse.Namespace) -> Override:
    """What the command line says.

    Raises:
        UsageError: it says something else.
    """
    if not arguments.why.strip():
        raise UsageError("--why needs a reason: every answer that is changed has it")
    if (arguments.scope == "all") != (not arguments.target):
        raise UsageError(
            "--scope all takes no --target"
            if arguments.target
            else f"--scope {arguments.scope} needs a --target"
        )
    if arguments.tier and arguments.tier not in list(Tier):
        raise UsageError(f"--tier is one of {', '.join(Tier)}, not {arguments.tier!r}")
    said = {
        "id": arguments.id or f"{arguments.what}-{secrets.token_hex(3)}",
        "kind": OverrideKind(arguments.what),
        "scope": StopScope(arguments.scope),
        "why": arguments.why[:500],
        "by": (arguments.by or login())[:128],
        "wall_s": time.time(),
        "lasts_s": arguments.lasts_s,
        "target": arguments.target,
        "labels": arguments.label,
        "answer": arguments.answer,
        "tier": arguments.tier,
        "amount": arguments.amount,
        "below": arguments.below,
        "context": dict(map(_entry, arguments.context)),
    }
    try:
        return msgspec.convert(said, Override)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from None


def _entry(text: str) -> tuple[str, ContextValue]:
    """``line=7`` is a number, ``line="7"`` and ``line=left`` are texts."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"--context {text!r} is not KEY=VALUE")
    try:
        found = json.loads(value)
    except ValueError:
        return name, value
    if isinstance(found, bool | str):
        return name, found
    return name, float(found) if isinstance(found, int | float) else value


def _tell(result: dict[str, Any]) -> None:
    overrides = msgspec.convert(result["overrides"], tuple[Override, ...])
    if not overrides:
        say(f"{result['region']}: nothing is overridden")
    for one in overrides:
        ends = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(one.wall_s + one.lasts_s))
        where = one.scope.value if not one.target else f"{one.scope.value} {one.target}"
        say(f"{result['region']}: {notice_of([one])} ({where}; until {ends})")
    tell_known(result)
