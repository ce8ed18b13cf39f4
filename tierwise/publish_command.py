"""What ``tierwise models publish`` does: check, predict, sign, write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import ReleaseError, StartError
from tierwise.catalogue_access import open_repository, signers_for
from tierwise.cli.output import say, say_json
from tierwise.cli.progress import progress_bar
from tierwise.models_command import PERCENT, downloads_as_json

if TYPE_CHECKING:
    from cloud_tier.publishing import Download, Prepared
    from cloud_tier.repository import Repository
    from runtime.catalogue import CatalogueEntry
    from tierwise.cli.progress import Shows

UNCHECKED = "none"


def run_publish(arguments: argparse.Namespace) -> int:
    """Publishes a version of a model."""
    from runtime.catalogue import CatalogueEntry, check_name, role_of  # noqa: PLC0415

    arguments.keys = arguments.keys or [Path("keys")]
    role = role_of(check_name(arguments.region)) if arguments.region else "targets"
    folders = {check_name(arguments.variant): arguments.folder}
    for name, folder in arguments.also:
        if folders.setdefault(check_name(name), Path(folder)) != Path(folder):
            raise StartError(f"the variant {name!r} is given twice")
    with open_repository(arguments) as repository, progress_bar("publish") as show:
        # First what costs nothing: a version that is taken, a key that is missing.
        version = _version(repository, arguments)
        signers = signers_for(repository, [role, "online"], arguments)
        prepared = {name: _prepared(name, one, version, arguments) for name, one in folders.items()}
        said = [f"{name}: {text}" for name, one in prepared.items() for text in one.said]
        accuracy = {}
        for name, folder in folders.items():
            accuracy[name], text = _accuracy(folder, prepared[name], arguments, show)
            said.append(f"{name}: {text}")
        tiers = {one.manifest.tier for one in prepared.values()}
        if len(tiers) > 1:
            raise StartError(f"variants of one version are for one tier, not for {sorted(tiers)}")
        try:
            entry = CatalogueEntry(
                arguments.model,
                version,
                tiers.pop(),
                {name: one.variant for name, one in prepared.items()},
                region=arguments.region,
                notes=arguments.notes,
            )
        except ValueError as error:
            raise StartError(f"{', '.join(folders)} make no version: {error}") from None
        contents = {key: each for one in prepared.values() for key, each in one.contents.items()}
        before = _before(repository, entry)
        downloads = _downloads(repository, before, entry, contents, show)
        repository.add(entry, contents, signers)
    if arguments.json:
        say_json(
            {
                "path": entry.path,
                "version": version,
                "checks": said,
                "accuracy": accuracy,
                "updates": {name: downloads_as_json(one) for name, one in downloads.items()},
            }
        )
        return 0
    for line in said:
        say(line)
    for name, found in downloads.items():
        full, sent = sum(one.full_bytes for one in found), sum(one.sent_bytes for one in found)
        share = sent / full * PERCENT
        say(f"{name}: the update takes {sent} of {full} bytes ({share:.0f} %)")
    say(f"{entry.path} is published")
    return 0


def _version(repository: Repository, arguments: argparse.Namespace) -> int:
    free: int = repository.next_version(arguments.model, arguments.region)
    wanted: int | None = arguments.version
    if wanted is not None and wanted < free:
        raise ReleaseError(
            f"version {wanted} of {arguments.model} cannot be published: versions only go up, and "
            f"the next one is {free}",
            because="not_above",
        )
    return free if wanted is None else wanted


def _prepared(name: str, folder: Path, version: int, arguments: argparse.Namespace) -> Prepared:
    from cloud_tier.publishing import prepare  # noqa: PLC0415 - keeps --help quick

    is_first = name == arguments.variant
    return prepare(
        folder,
        model=arguments.model,
        version=version,
        policy=arguments.policy if is_first else None,
        without_policy=arguments.without_policy,
        hardware=tuple(arguments.hardware) if is_first else (),
        engines=tuple(arguments.runtime) if is_first else (),
    )


def _accuracy(
    folder: Path, prepared: Prepared, arguments: argparse.Namespace, show: Shows
) -> tuple[float | None, str]:
    """The accuracy on the held set, and what to say about it.

    Raises:
        ReleaseError: it is below what the manifest says.
        PolicyError: the held set does not fit the model.
    """
    from cloud_tier.publishing import accuracy_floor  # noqa: PLC0415 - keeps --help quick
    from model_zoo.catalog import BUNDLED_TASK, LABELS  # noqa: PLC0415
    from model_zoo.policies.collect import accuracy_of, read_examples  # noqa: PLC0415

    is_bundled = (prepared.manifest.name, prepared.manifest.labels) == (BUNDLED_TASK, LABELS)
    source = arguments.held_set or ("bundled:test" if is_bundled else UNCHECKED)
    if source == UNCHECKED:
        return None, "accuracy is not checked: no labelled examples (--held-set FILE)"
    examples = read_examples(source)

    def progress(_: str, done: int, total: int) -> None:
        show(done, total, "accuracy")

    found = accuracy_of(folder, examples, progress)
    floor = accuracy_floor(prepared.manifest)
    if floor is None:
        return found, f"accuracy {found:.2%} on {examples.source}; the manifest has none"
    if found < floor:
        raise ReleaseError(
            f"{folder} answers {found:.2%} of {examples.source} rightly, and its manifest stands "
            f"for {floor:.2%}: it is not the model that was measured, or the data are others",
            because="below_accuracy",
        )
    return found, f"accuracy {found:.2%} on {examples.source}, at least {floor:.2%} is promised"


def _before(repository: Repository, entry: CatalogueEntry) -> CatalogueEntry | None:
    """The newest version that is published; it was for the same tier."""
    from runtime.catalogue import parse_path  # noqa: PLC0415 - keeps --help quick

    places = {path: parse_path(path) for path in repository.paths()}
    same = {
        one.version: path
        for path, one in places.items()
        if (one.model, one.region) == (entry.model, entry.region)
    }
    if not same:
        return None
    before = repository.entry(same[max(same)])
    if before.tier is not entry.tier:
        raise StartError(
            f"{before.path} is for the tier {before.tier.value}, this one for {entry.tier.value}: "
            f"publish it as --model {entry.model}-{entry.tier.value}"
        )
    return before


def _downloads(
    repository: Repository,
    before: CatalogueEntry | None,
    entry: CatalogueEntry,
    contents: dict[str, bytes],
    show: Shows,
) -> dict[str, list[Download]]:
    """What an update from the version before takes, by variant that both have."""
    from cloud_tier.publishing import predict_downloads, read_blobs  # noqa: PLC0415

    found: dict[str, list[Download]] = {}
    if before is None:
        return found
    for name in sorted(before.variants.keys() & entry.variants.keys()):
        old, new = before.release(name), entry.release(name)
        known = contents | read_blobs(repository.files, list(old.files.values()))
        found[name] = []
        for done, one in enumerate(predict_downloads(old, new, known), 1):
            show(done, len(new.files), f"delta: {one.name}")
            found[name].append(one)
    return found
