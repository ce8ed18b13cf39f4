"""The parser of ``tierwise``: argparse, but an unknown word names the nearest known one."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

import tierwise


class UsageError(Exception):
    """The command line is not understood; the text says what would be."""


class Parser(argparse.ArgumentParser):
    """Raises ``UsageError`` instead of ending the process, and suggests.

    With ``default_command``, words that do not begin with a command of a group are that one's.
    """

    def __init__(self, *, default_command: str = "", **options: Any) -> None:  # noqa: ANN401 - argparse's own
        # An abbreviation that works today is another option's name tomorrow.
        super().__init__(**{"allow_abbrev": False, **options})
        self._default_command = default_command

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - argparse's own
        """Parses, with the default command where none is named."""
        if self._default_command and args and args[0] not in {"-h", "--help"}:
            groups = self._subparsers
            commands = () if groups is None else groups._group_actions[0].choices or ()  # noqa: SLF001 - argparse has no public way
            if args[0] not in commands:
                args = [self._default_command, *args]
        found, extras = super().parse_known_args(args, namespace)
        if extras:
            # Here, where the command is known whose options are near; argparse leaves it to the
            # outermost parser, which has none of them.
            self.error(f"unrecognized arguments: {' '.join(extras)}{self._near(extras)}")
        return found, extras

    def error(self, message: str) -> NoReturn:
        """Raises what argparse has found, with the way to help."""
        raise UsageError(f"{message}\ntry `{self.prog} --help`")

    def _near(self, words: list[str]) -> str:
        """The option that somebody may have meant, as the end of a sentence."""
        for word in words:
            name = word.partition("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1)
            if name.startswith("--") and near:
                return f": did you mean {near[0]!r}?"
        return ""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # The only hook that argparse has for its least helpful message.
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}"
        name = "/".join(action.option_strings) or str(action.metavar or action.dest).lower()
        raise argparse.ArgumentError(None, f"unknown {name} {str(value)!r}: {hint}")


def build_parser() -> Parser:
    """The parser of all commands; imports nothing heavy."""
    # Here, because the commands use this module's class for their own sub-commands.
    from tierwise.cli import commands  # noqa: PLC0415

    parser = Parser(
        prog="tierwise",
        description="Hierarchical edge-to-cloud inference, answered inside one deadline.",
    )
    parser.add_argument("--version", action="version", version=f"tierwise {tierwise.__version__}")
    parser.add_argument(
        "--traceback", action="store_true", help="show where an unexpected error came from"
    )
    subparsers = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for add_parser in commands.ADD_PARSERS:
        add_parser(subparsers)
    return parser
