"""``tierwise models``: the bundled models, and those of a signed catalogue."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model_zoo import build
from tierwise.cli.keys import add_keys
from tierwise.cli.models_import import add_import
from tierwise.cli.output import say_json, say_table
from tierwise.cli.shrink import add_shrinking
from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.manifest import ModelManifest
    from tierwise.cli.types import Subparsers

_DIGEST_CHARACTERS = 12


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "models", "list, import, build, publish and withdraw models")
    list_text = "the bundled models, or those of a repository, verified"
    lister = group.add_parser("list", help=list_text, description=f"List {list_text}.")
    lister.add_argument(
        "--repository", type=Path, metavar="DIR", help="folder of a repository (default: bundled)"
    )
    add_json(lister)
    lister.set_defaults(run=_list)
    build_text = "train, quantize and calibrate the models of a task (extra `zoo`)"
    builder = group.add_parser("build", help=build_text, description=f"{build_text.capitalize()}.")
    build.add_arguments(builder)
    builder.set_defaults(run=build.run)
    add_import(group)
    add_shrinking(group)
    _add_publish(group)
    parser = _add(group, "inspect", "show what is signed for about one version", _inspect)
    _add_model(parser)
    parser.add_argument("version", metavar="VERSION", nargs="?", type=int, help="(default: newest)")
    parser = _add(group, "diff", "compare two versions, and what the update takes", _diff)
    _add_model(parser)
    parser.add_argument("old", metavar="OLD", type=int, help="version")
    parser.add_argument("new", metavar="NEW", type=int, help="version")
    parser = _add(group, "yank", "withdraw a version: no device takes it any more", _yank)
    _add_model(parser)
    parser.add_argument("version", metavar="VERSION", type=int, help="version")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why, for the history")
    add_keys(parser)


def _add_publish(group: Subparsers) -> None:
    parser = _add(group, "publish", "check a model folder, sign for it and publish it", _publish)
    parser.add_argument("folder", type=Path, metavar="DIR", help="model folder, with manifest.json")
    parser.add_argument("--model", required=True, metavar="NAME", help="the name in its manifest")
    parser.add_argument("--version", type=int, metavar="N", help="(default: the next one)")
    parser.add_argument(
        "--variant", default="default", metavar="NAME", help="its name (default: %(default)s)"
    )
    parser.add_argument(
        "--also", nargs=2, action="append", default=[], metavar=("NAME", "DIR"),
        help="one more variant of the same version; may be repeated",
    )  # fmt: skip
    parser.add_argument("--region", metavar="NAME", help="for this region only, with its key")
    parser.add_argument(
        "--held-set", metavar="FILE",
        help=".npz with `labels` and the inputs, or bundled:test; `none` leaves accuracy unchecked "
        "(default: bundled:test for the bundled task)",
    )  # fmt: skip
    parser.add_argument("--policy", type=Path, metavar="FILE", help="(default: DIR/policy.json)")
    parser.add_argument("--without-policy", action="store_true", help="there is none, on purpose")
    parser.add_argument(
        "--hardware", action="append", default=[], metavar="TAG", help="what a device must have"
    )
    parser.add_argument(
        "--runtime", action="append", default=[], metavar="TAG", help="what its runtime must have"
    )
    parser.add_argument("--notes", default="", metavar="TEXT", help="for those who assign it")
    add_keys(parser)


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


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name, or region/REGION/NAME")


def _publish(arguments: argparse.Namespace) -> int:
    from tierwise.publish_command import run_publish  # noqa: PLC0415 - keeps --help quick

    return run_publish(arguments)


def _inspect(arguments: argparse.Namespace) -> int:
    from tierwise.models_command import run_inspect  # noqa: PLC0415 - keeps --help quick

    return run_inspect(arguments)


def _diff(arguments: argparse.Namespace) -> int:
    from tierwise.models_command import run_diff  # noqa: PLC0415 - keeps --help quick

    return run_diff(arguments)


def _yank(arguments: argparse.Namespace) -> int:
    from tierwise.models_command import run_yank  # noqa: PLC0415 - keeps --help quick

    return run_yank(arguments)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.repository is not None:
        from tierwise.models_command import run_list  # noqa: PLC0415 - keeps --help quick

        return run_list(arguments)
    from model_zoo.catalog import bundled_model  # noqa: PLC0415
    from runtime.adapters.artifacts import open_model  # noqa: PLC0415
    from runtime.messages import USUAL_TIERS  # noqa: PLC0415

    manifests = [open_model(bundled_model(tier)).manifest for tier in USUAL_TIERS]
    if arguments.json:
        say_json([_as_json(manifest) for manifest in manifests])
        return 0
    head = ("TIER", "MODEL", "VERSION", "MEMBER", "SHA256", "ACCURACY", "ACCEPT AT", "BYTES")
    say_table(head, [row for manifest in manifests for row in _rows(manifest)], right=3)
    return 0


def _rows(manifest: ModelManifest) -> list[tuple[str, ...]]:
    accuracy = f"{manifest.measured.accuracy:.2%}" if manifest.measured else "-"
    return [
        (
            manifest.tier.value,
            manifest.name,
            manifest.version,
            member.name,
            manifest.files[member.file].sha256[:_DIGEST_CHARACTERS] if member.file else "-",
            accuracy if len(manifest.members) == 1 else f"{accuracy} (all)",
            f"{manifest.accept_at:.3f}",
            f"{manifest.files[member.file].size_bytes}" if member.file else "-",
        )
        for member in manifest.members
    ]


def _as_json(manifest: ModelManifest) -> dict[str, object]:
    return {
        "tier": manifest.tier.value,
        "name": manifest.name,
        "version": manifest.version,
        "size_bytes": manifest.size_bytes,
        "accuracy": manifest.measured.accuracy if manifest.measured else None,
        "accept_at": manifest.accept_at,
        "files": {name: file.sha256 for name, file in manifest.files.items()},
    }
