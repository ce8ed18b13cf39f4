"""``tierwise doctor``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from runtime.command_line import add_settings_arguments
from tierwise.cli.config import add_tier, load_settings
from tierwise.cli.output import say, say_json, say_table
from tierwise.cli.types import add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    text = "look for what would go wrong here, and say how to mend it"
    parser = subparsers.add_parser(
        "doctor",
        help=text,
        description=f"{text.capitalize()}. With --tier, the broker, state folder and model of "
        "those settings are checked; without, those of a plain installation. Exit code 1 when "
        "there is a problem.",
    )
    add_tier(parser, required=False)
    add_settings_arguments(parser)
    add_json(parser)
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from runtime.common_settings import LogSettings  # noqa: PLC0415 - keeps --help quick
    from runtime.logs import configure_logs  # noqa: PLC0415
    from tierwise import doctor  # noqa: PLC0415
    from tierwise.cli.parser import UsageError  # noqa: PLC0415 - it imports this module

    if arguments.tier is None and (arguments.config or arguments.flags):
        raise UsageError("--config and --set need --tier: whose settings are they?")
    # What the parts under examination log themselves, the findings say better.
    configure_logs(LogSettings(level="error", format="console"))
    place = doctor.Place()
    if arguments.tier is not None:
        place = doctor.place_of(load_settings(arguments).settings)
    findings = doctor.examine(place)
    is_fine = all(finding.status != "problem" for finding in findings)
    if arguments.json:
        say_json({"ok": is_fine, "checks": [finding._asdict() for finding in findings]})
    else:
        say_table(
            ("CHECK", "STATUS", "FOUND"), [(one.check, one.status, one.found) for one in findings]
        )
        for finding in findings:
            if finding.remedy:
                say(f"\n{finding.check}: {finding.remedy}")
    return 0 if is_fine else 1
