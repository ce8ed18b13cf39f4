"""``tierwise keys``: the keys that the catalogue of models is signed with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierwise.cli.types import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "keys", "make, check and exchange the keys of the catalogue")
    parser = _add(group, "init", "make all keys, and an empty repository", _init)
    parser.add_argument(
        "--folder", type=Path, default=Path("keys"), metavar="DIR",
        help="where the keys go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--keys", type=int, default=3, metavar="N", help="root keys to make (default: %(default)s)"
    )
    parser.add_argument(
        "--threshold", type=int, default=2, metavar="N",
        help="how many of them sign a new root (default: %(default)s)",
    )  # fmt: skip
    _add_unencrypted(parser)
    parser.add_argument(
        "--rollout-unencrypted", action="store_true",
        help="the rollout key without a passphrase: its controller starts unattended",
    )  # fmt: skip
    parser = _add(group, "status", "roles, thresholds, expiry dates, and what is wrong", _status)
    add_keys(parser)
    parser = _add(group, "renew", "sign a role's metadata anew before they expire", _renew)
    parser.add_argument("role", metavar="ROLE", help="online, targets, root or region-NAME")
    add_keys(parser)
    parser = _add(group, "rotate", "exchange the keys of a role", _rotate)
    parser.add_argument(
        "role", metavar="ROLE", help="online, targets, root, rollout or region-NAME"
    )
    parser.add_argument(
        "--old", action="append", metavar="KEYID",
        help="only this key of it, by its first characters; may be repeated (default: all)",
    )  # fmt: skip
    add_keys(parser)
    _add_unencrypted(parser)
    parser = _add(group, "add-region", "make a key that may publish for one region only", _region)
    parser.add_argument("region", metavar="REGION", help="the region's name")
    add_keys(parser)
    _add_unencrypted(parser)
    parser = _add(group, "add-rollout", "make the key that signs assignments to devices", _rollout)
    add_keys(parser)
    _add_unencrypted(parser)


def add_keys(parser: argparse.ArgumentParser) -> None:
    """``--keys``: folders with keys."""
    parser.add_argument(
        "--keys", type=Path, action="append", metavar="DIR",
        help="folder with keys and root.json; may be repeated (default: keys)",
    )  # fmt: skip


def _add_unencrypted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unencrypted",
        action="store_true",
        help="new keys without a passphrase: whoever reads the file has them",
    )


def _add(
    group: Subparsers, name: str, text: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("repository"), metavar="DIR",
        help="folder of the repository (default: %(default)s)",
    )  # fmt: skip
    add_json(parser)
    parser.set_defaults(run=run)
    return parser


def _init(arguments: argparse.Namespace) -> int:
    from tierwise.keys_command import run_init  # noqa: PLC0415 - keeps --help quick

    return run_init(arguments)


def _status(arguments: argparse.Namespace) -> int:
    from tierwise.keys_command import run_status  # noqa: PLC0415 - keeps --help quick

    return run_status(arguments)


def _renew(arguments: argparse.Namespace) -> int:
    from tierwise.keys_command import run_renew  # noqa: PLC0415 - keeps --help quick

    return run_renew(arguments)


def _rotate(arguments: argparse.Namespace) -> int:
    from tierwise.keys_command import run_rotate  # noqa: PLC0415 - keeps --help quick

    return run_rotate(arguments)


def _region(arguments: argparse.Namespace) -> int:
    from tierwise.keys_command import run_add_region  # noqa: PLC0415 - keeps --help quick

    return run_add_region(arguments)


def _rollout(arguments: argparse.Namespace) -> int:
    from tierwise.keys_command import run_add_rollout  # noqa: PLC0415 - keeps --help quick

    return run_add_rollout(arguments)
