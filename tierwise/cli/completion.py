"""``tierwise completion SHELL``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tierwise.cli.output import say

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

_SHELLS = ("bash", "zsh", "fish")
_USE = 'bash: eval "$(tierwise completion bash)"; the others alike'


def add_parser(subparsers: Subparsers) -> None:
    """Adds the command."""
    text = "print the completion script of a shell (extra `completion`)"
    parser = subparsers.add_parser(
        "completion", help=text, description=f"{text.capitalize()}.", epilog=_USE
    )
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))
    parser.set_defaults(run=_completion)


def _completion(arguments: argparse.Namespace) -> int:
    from runtime.errors import StartError  # noqa: PLC0415 - keeps --help quick
    from tierwise.cli.parser import build_parser  # noqa: PLC0415 - it imports this module

    try:
        import shtab  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise StartError(
            "completion scripts need shtab: pip install 'tierwise[completion]'"
        ) from error
    if arguments.shell not in shtab.SUPPORTED_SHELLS:
        raise StartError(f"this shtab cannot write for {arguments.shell}: pip install -U shtab")
    say(shtab.complete(build_parser(), shell=arguments.shell).rstrip("\n"))
    return 0
