"""``tierwise models list|build``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from model_zoo import build
from tierwise.cli.output import say_json, say_table
from tierwise.cli.types import add_group, add_json

if TYPE_CHECKING:
    from runtime.manifest import ModelManifest
    from tierwise.cli.types import Subparsers

_DIGEST_CHARACTERS = 12


def add_parser(subparsers: Subparsers) -> None:
    """Adds the commands."""
    group = add_group(subparsers, "models", "list the bundled models, or build them again")
    list_text = "the bundled models, verified against their digests"
    lister = group.add_parser("list", help=list_text, description=f"List {list_text}.")
    add_json(lister)
    lister.set_defaults(run=_list)
    build_text = "train, quantize and calibrate the models of a task (extra `zoo`)"
    builder = group.add_parser("build", help=build_text, description=f"{build_text.capitalize()}.")
    build.add_arguments(builder)
    builder.set_defaults(run=build.run)


def _list(arguments: argparse.Namespace) -> int:
    from model_zoo.catalog import bundled_model  # noqa: PLC0415 - keeps --help quick
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
            manifest.files[member.file].sha256[:_DIGEST_CHARACTERS],
            accuracy if len(manifest.members) == 1 else f"{accuracy} (all)",
            f"{manifest.accept_at:.3f}",
            f"{manifest.files[member.file].size_bytes}",
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
