"""``tierwise store``: the tables of telemetry, as they are and as this version needs them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tierwise.cli.output import say, say_json
from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "store", "the database of telemetry: its tables")
    for name, text in {
        "migrate": "bring the tables to this version; the cloud tier does so when it starts",
        "status": "say of which version the tables are; exit code 1 if not of this one",
    }.items():
        parser = group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        parser.add_argument(
            "--store",
            default="state/cloud/telemetry.sqlite",
            metavar="URL",
            help="URL of the database, or SQLite's file (default: %(default)s)",
        )
        add_json(parser)
        parser.set_defaults(run=_run, what=name)


def _run(arguments: argparse.Namespace) -> int:
    from tierwise.metrics_store import open_store  # noqa: PLC0415 - keeps --help quick

    engine = open_store(arguments.store)
    # Needs the extra, which is there by now.
    from cloud_tier.telemetry.migrating import migrate, schema_state  # noqa: PLC0415

    try:
        before = schema_state(engine)
        if arguments.what == "migrate":
            migrate(engine)
        state = schema_state(engine)
    finally:
        engine.dispose()
    if arguments.json:
        say_json({"before": before.found, "revision": state.found, "wanted": state.wanted})
    else:
        found, changed = state.found or "none", before != state
        was = f", was {before.found or 'none'}" if changed else ""
        say(f"revision {found}{was}; this version of Tierwise needs {state.wanted}")
    return 0 if state.is_current else 1
