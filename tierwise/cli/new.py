"""``tierwise new``: a folder to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.output import say, say_json
from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from tierwise.cli.types import Subparsers

KINDS = ("picture", "series", "text", "tabular")


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "new", "a folder to begin with: a task of your own")
    text = "write a folder that leads from your labelled data to three tiers that answer"
    parser = group.add_parser("task", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("name", metavar="NAME", help="of task and models: letters, digits, '-'")
    parser.add_argument(
        "--kind", choices=KINDS, default="tabular", help="of the data (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="a new one (default: NAME)")
    add_json(parser)
    parser.set_defaults(run=_task)


def _task(arguments: argparse.Namespace) -> int:
    from tierwise.new_task import write_task_folder  # noqa: PLC0415 - keeps --help quick

    folder = arguments.folder or Path(arguments.name)
    written = write_task_folder(arguments.name, arguments.kind, folder)
    after = f"cd {folder} && sh run.sh --made-up"
    if arguments.json:
        files = [str(path.relative_to(folder)) for path in written]
        say_json({"folder": str(folder), "kind": arguments.kind, "files": files, "next": after})
        return 0
    for path in written:
        say(str(path))
    say(f"\nTry it:  {after}\nThen read {folder / 'README.md'}: what your own data must look like.")
    return 0
