"""What ``tierwise models list|inspect|diff|yank`` do with a repository."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import ReleaseError
from tierwise.catalogue_access import open_files, open_repository, signers_for
from tierwise.cli.output import say, say_json, say_table
from tierwise.cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloud_tier.publishing import Download
    from runtime.catalogue import CatalogueEntry
    from runtime.core.releases import Release
    from runtime.ports_files import FileSystem

PERCENT = 100


def run_list(arguments: argparse.Namespace) -> int:
    """Lists what is published, and what was withdrawn."""
    from cloud_tier.history import read_history  # noqa: PLC0415 - keeps --help quick
    from cloud_tier.repository import WITHDRAWN  # noqa: PLC0415

    files = open_files(arguments.repository)
    entries = _entries(files)
    withdrawn = {
        one.path: one
        for one in read_history(files)
        if one.action == WITHDRAWN and one.path not in entries
    }
    if arguments.json:
        say_json(
            {
                "entries": [_summary(path, entry) for path, entry in entries.items()],
                "withdrawn": [
                    {"path": path, "at": one.at, "by": one.by, "reason": one.reason}
                    for path, one in sorted(withdrawn.items())
                ],
            }
        )
        return 0
    rows = [
        (path, entry.tier.value, ", ".join(sorted(entry.variants)), _accuracy(entry), f"{size}")
        for path, entry in entries.items()
        for size in [max(one.size_bytes for one in entry.variants.values())]
    ]
    say_table(("ENTRY", "TIER", "VARIANTS", "ACCURACY", "BYTES"), rows, right=2)
    for path, one in sorted(withdrawn.items()):
        say(f"withdrawn: {path} at {one.at} by {one.by}: {one.reason}")
    return 0


def run_inspect(arguments: argparse.Namespace) -> int:
    """Shows one entry."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    entry = _entry(_entries(open_files(arguments.repository)), arguments.model, arguments.version)
    if arguments.json:
        say_json({"path": entry.path, **msgspec.to_builtins(entry)})
        return 0
    say(f"{entry.path}: for the tier {entry.tier.value}")
    if entry.notes:
        say(entry.notes)
    for name, variant in sorted(entry.variants.items()):
        needs = [*variant.requirements.hardware, *variant.requirements.runtime]
        needs += [f"{one} >= {two}" for one, two in variant.requirements.min_runtime.items()]
        say(f"variant {name}: needs {', '.join(needs) or 'nothing'}; {_facts(variant.measured)}")
        rows = [(file, one.sha256[:12], str(one.size_bytes)) for file, one in variant.files.items()]
        say_table(("FILE", "SHA256", "BYTES"), sorted(rows), right=1)
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Compares two versions, variant by variant."""
    files = open_files(arguments.repository)
    entries = _entries(files)
    old = _entry(entries, arguments.model, arguments.old)
    new = _entry(entries, arguments.model, arguments.new)
    shared = sorted(old.variants.keys() & new.variants.keys())
    downloads = {
        name: list(_downloads(files, old.release(name), new.release(name))) for name in shared
    }
    if arguments.json:
        say_json(
            {
                "old": _summary(old.path, old),
                "new": _summary(new.path, new),
                "variants_added": sorted(new.variants.keys() - old.variants.keys()),
                "variants_removed": sorted(old.variants.keys() - new.variants.keys()),
                "variants": {name: downloads_as_json(one) for name, one in downloads.items()},
            }
        )
        return 0
    say(f"accuracy {_accuracy(old)} -> {_accuracy(new)}")
    for name in sorted(new.variants.keys() ^ old.variants.keys()):
        say(f"variant {name}: {'added' if name in new.variants else 'removed'}")
    for name, found in downloads.items():
        say(f"variant {name}:")
        rows = [
            (one.name, "same" if one.delta_bytes == 0 else "changed", f"{one.full_bytes}", sent)
            for one in found
            for sent in [f"{one.sent_bytes}"]
        ]
        say_table(("FILE", "", "BYTES", "UPDATE TAKES"), rows, right=2)
    return 0


def run_yank(arguments: argparse.Namespace) -> int:
    """Withdraws a version."""
    from runtime.catalogue import parse_path, role_of  # noqa: PLC0415 - keeps --help quick

    arguments.keys = arguments.keys or [Path("keys")]
    path = f"{arguments.model}/{arguments.version}.json"
    region = parse_path(path).region
    role = role_of(region) if region else "targets"
    with open_repository(arguments) as repository:
        signers = signers_for(repository, [role, "online"], arguments)
        repository.withdraw(path, arguments.reason, signers)
    if arguments.json:
        say_json({"withdrawn": path, "reason": arguments.reason})
    else:
        say(f"{path} is withdrawn; devices that run it go on until they are assigned another one")
    return 0


def downloads_as_json(found: Iterable[Download]) -> list[dict[str, Any]]:
    """By file, in bytes."""
    return [
        {
            "file": one.name,
            "full_bytes": one.full_bytes,
            "delta_bytes": one.delta_bytes,
            "sent_bytes": one.sent_bytes,
        }
        for one in found
    ]


def _downloads(files: FileSystem, old: Release, new: Release) -> list[Download]:
    from cloud_tier.publishing import predict_downloads, read_blobs  # noqa: PLC0415

    contents = read_blobs(files, [*old.files.values(), *new.files.values()])
    with progress_bar("delta") as show:
        found = []
        for done, one in enumerate(predict_downloads(old, new, contents), 1):
            show(done, len(new.files), f"delta: {one.name}")
            found.append(one)
    return found


def _entries(files: FileSystem) -> dict[str, CatalogueEntry]:
    from cloud_tier.repository_files import first_root, read_entry, read_signed  # noqa: PLC0415

    paths = read_signed(files, first_root(files)).paths()
    return {path: read_entry(files, paths, path) for path in sorted(paths)}


def _entry(entries: dict[str, CatalogueEntry], model: str, version: int | None) -> CatalogueEntry:
    found = {one.version: one for path, one in entries.items() if path.rpartition("/")[0] == model}
    chosen = found.get(max(found, default=0) if version is None else version)
    if chosen is None:
        known = ", ".join(map(str, sorted(found))) or "none"
        raise ReleaseError(
            f"{model} is not published in this version; versions that are: {known}",
            because="not_in_catalogue",
        )
    return chosen


def _summary(path: str, entry: CatalogueEntry) -> dict[str, Any]:
    return {
        "path": path,
        "model": entry.model,
        "version": entry.version,
        "tier": entry.tier.value,
        "region": entry.region,
        "notes": entry.notes,
        "variants": {
            name: {
                "size_bytes": one.size_bytes,
                "accuracy": one.measured.accuracy if one.measured else None,
                "accept_at": one.accept_at,
                "manifest_sha256": one.files["manifest.json"].sha256,
            }
            for name, one in entry.variants.items()
        },
    }


def _accuracy(entry: CatalogueEntry) -> str:
    known = [one.measured.accuracy for one in entry.variants.values() if one.measured]
    return f"{max(known):.2%}" if known else "-"


def _facts(measured: Any) -> str:  # noqa: ANN401 - imported when it runs
    if measured is None:
        return "not measured"
    return f"accuracy {measured.accuracy:.2%} on {measured.num_examples} examples"
