"""``tierwise config check|show|schema``: what settings are, mean and come from."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from runtime.command_line import add_settings_arguments
from tierwise.cli.output import say, say_json, say_table
from tierwise.cli.types import TIERS, add_group, add_json

if TYPE_CHECKING:
    import msgspec

    from runtime.settings import Loaded
    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "config", "explain, check and show settings")
    check_text = "whether file, environment and --set make usable settings"
    check = group.add_parser("check", help=check_text, description=f"Say {check_text}.")
    show_text = "every value and where it comes from; secrets are hidden"
    show = group.add_parser("show", help=show_text, description=f"Show {show_text}.")
    for parser, run in ((check, _check), (show, _show)):
        add_tier(parser)
        add_settings_arguments(parser)
        add_json(parser)
        parser.set_defaults(run=run)
    schema_text = "every key with type, default and meaning"
    schema = group.add_parser("schema", help=schema_text, description=f"Show {schema_text}.")
    add_tier(schema)
    form = schema.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON schema; errors as JSON, too")
    form.add_argument("--toml", action="store_true", help="as a commented TOML file to start from")
    schema.set_defaults(run=_schema)


def add_tier(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """``--tier``."""
    parser.add_argument("--tier", choices=TIERS, required=required, help="whose settings")


def settings_type_of(tier: str) -> type[msgspec.Struct]:
    """The settings of a tier, by its word on the command line."""
    from cloud_tier.settings import CloudSettings  # noqa: PLC0415 - keeps --help quick
    from edge_agent.settings import EdgeSettings  # noqa: PLC0415
    from regional_gateway.settings import GatewaySettings  # noqa: PLC0415

    types: dict[str, type[msgspec.Struct]] = {
        "edge": EdgeSettings,
        "gateway": GatewaySettings,
        "cloud": CloudSettings,
    }
    return types[tier]


def load_settings(arguments: argparse.Namespace) -> Loaded[msgspec.Struct]:
    """The settings that the arguments name."""
    from runtime.settings import load  # noqa: PLC0415 - keeps --help quick

    return load(
        settings_type_of(arguments.tier),
        file=arguments.config,
        environment=os.environ,
        flags=arguments.flags,
    )


def _check(arguments: argparse.Namespace) -> int:
    origins = load_settings(arguments).origins
    given = {key: str(origin) for key, origin in origins.items() if origin.source != "default"}
    if arguments.json:
        say_json({"tier": arguments.tier, "usable": True, "keys": len(origins), "given": given})
    else:
        say(f"the {arguments.tier} settings are usable: {len(given)} of {len(origins)} keys given")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from runtime.settings_reference import shown_values, toml_value  # noqa: PLC0415

    settings, origins = load_settings(arguments)
    values = shown_values(settings)
    if arguments.json:
        say_json(
            {key: {"value": value, "origin": str(origins[key])} for key, value in values.items()}
        )
        return 0
    rows = [
        (key, "(not set)" if value is None else toml_value(value), str(origins[key]))
        for key, value in values.items()
    ]
    say_table(("KEY", "VALUE", "FROM"), rows)
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from runtime.settings_reference import describe, example_toml, json_schema  # noqa: PLC0415

    settings_type = settings_type_of(arguments.tier)
    if arguments.json:
        say_json(json_schema(settings_type))
    elif arguments.toml:
        say(example_toml(settings_type).rstrip("\n"))
    else:
        rows = [
            (row.key, ", ".join(filter(None, (row.type, row.constraints))), row.default,
             row.description)
            for row in describe(settings_type)
        ]  # fmt: skip
        say_table(("KEY", "TYPE", "DEFAULT", "MEANING"), rows)
    return 0
