"""What ``tierwise keys`` does."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import StartError
from tierwise.catalogue_access import (
    new_passphrase,
    open_files,
    open_repository,
    publisher,
    signers_for,
)
from tierwise.cli.output import note, say, say_json, say_table

if TYPE_CHECKING:
    from cloud_tier.keys import KeyFile
    from cloud_tier.repository import Repository

WARN_DAYS = {"root": 60, "targets": 30, "snapshot": 3, "timestamp": 2}
WARN_REGION_DAYS = 14
EXIT_FOUND = 1


def run_init(arguments: argparse.Namespace) -> int:
    """Makes keys, the first root and an empty repository."""
    from cloud_tier.keys import ROOT_FILE, new_key, write_key, write_new  # noqa: PLC0415
    from cloud_tier.new_repository import create_repository  # noqa: PLC0415
    from cloud_tier.repository_files import is_repository  # noqa: PLC0415
    from cloud_tier.rotation import make_root  # noqa: PLC0415
    from runtime.adapters.clock import SystemClock  # noqa: PLC0415
    from runtime.catalogue import ROLLOUT_ROLE  # noqa: PLC0415

    folder: Path = arguments.folder
    if folder.is_dir() and any(folder.iterdir()):
        raise StartError(f"{folder} is not empty: keys are not written over; give another --folder")
    files = open_files(arguments.repository, make=True)
    if is_repository(files):
        raise StartError(f"{arguments.repository} is a repository already; give another one")
    passphrase = new_passphrase(unencrypted=arguments.unencrypted)
    roots = [new_key() for _ in range(arguments.keys)]
    targets, online, rollout = new_key(), new_key(), new_key()
    rollout_passphrase = None if arguments.rollout_unencrypted else passphrase
    root = make_root(
        [signer for _, signer in roots],
        targets[1],
        online[1],
        threshold=arguments.threshold,
        now=dt.datetime.now(dt.UTC).replace(microsecond=0),
    )
    made = [write_key(folder, "root", key, passphrase) for key in roots]
    made += [write_key(folder, "targets", targets, passphrase)]
    made += [write_key(folder, "online", online, passphrase)]
    made += [write_key(folder, ROLLOUT_ROLE, rollout, rollout_passphrase)]
    write_new(folder / ROOT_FILE, root, 0o644)
    signers = {one.public_key.keyid: one for _, one in (targets, online)}
    create_repository(
        files, root, signers, clock=SystemClock(), by=publisher(), rollout=rollout[1].public_key
    )
    if arguments.json:
        say_json(
            {
                "keys": [str(one.path) for one in made],
                "root": str(folder / ROOT_FILE),
                "repository": str(arguments.repository),
                "threshold": arguments.threshold,
                "encrypted": passphrase is not None,
                "rollout_encrypted": rollout_passphrase is not None,
            }
        )
        return 0
    for one in made:
        say(f"{one.path}")
    say(f"{folder / ROOT_FILE}: what devices are given")
    say(f"{arguments.repository}: an empty repository")
    note("move the root keys to separate sticks, and the targets key to the release manager's:")
    note("only the online key is to stay on the machine that renews (docs/publishing.md),")
    note(f"and the rollout key goes to that of the rollout controller{_said(rollout_passphrase)}")
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """Shows roles and keys; code 1 where something is wrong or about to be."""
    from cloud_tier.keys import keys_in  # noqa: PLC0415
    from cloud_tier.rotation import key_ids  # noqa: PLC0415

    arguments.keys = arguments.keys or [Path("keys")]
    files = keys_in(arguments.keys)
    warnings = [f"{one.path} is {one.others_may}" for one in files if one.others_may]
    rows: list[dict[str, Any]] = []
    with open_repository(arguments) as repository:
        if repository.signed.is_interrupted:
            warnings.append("a rotation was broken off: `tierwise keys renew targets` finishes it")
        signed = repository.signed
        roles = {
            "root": signed.root.signed,
            "targets": signed.targets.signed,
            "snapshot": signed.snapshot.signed,
            "timestamp": signed.timestamp.signed,
            **{role: one.signed for role, one in signed.regions.items()},
        }
        for role, one in roles.items():
            group = "online" if role in {"snapshot", "timestamp"} else role
            ids, threshold = key_ids(repository, group)
            here = [key for key in ids if any(file.is_of(key) for file in files)]
            left = one.expires - repository.now
            rows.append(
                {
                    "role": role,
                    "version": one.version,
                    "threshold": threshold,
                    "keys": ids,
                    "keys_here": here,
                    "expires": one.expires.isoformat(),
                    "days_left": round(left / dt.timedelta(days=1), 1),
                }
            )
            if left < dt.timedelta(days=WARN_DAYS.get(role, WARN_REGION_DAYS)):
                what = "has expired" if left <= dt.timedelta() else "expires soon"
                warnings.append(f"{role} {what}: `tierwise keys renew {group}`")
        rows += _rollout_row(repository, files)
    by_role = {row["role"]: row for row in rows}
    if _folders(files, by_role["timestamp"]) & _folders(files, by_role["root"]):
        warnings.append("root keys lie beside the online key: whoever takes this folder has both")
    if arguments.json:
        say_json({"roles": rows, "warnings": warnings})
    else:
        say_table(
            ("ROLE", "EXPIRES", "KEYS", "VERSION", "THRESHOLD", "OF", "HERE"),
            [
                (
                    row["role"],
                    (row["expires"] or "-")[:10],
                    " ".join(key[:8] for key in row["keys"]),
                    str(row["version"] or "-"),
                    str(row["threshold"]),
                    str(len(row["keys"])),
                    str(len(row["keys_here"])),
                )
                for row in rows
            ],
            right=4,
        )
        for warning in warnings:
            note(f"warning: {warning}")
    return EXIT_FOUND if warnings else 0


def run_renew(arguments: argparse.Namespace) -> int:
    """Signs anew."""
    from cloud_tier.rotation import renew_root  # noqa: PLC0415

    arguments.keys = arguments.keys or [Path("keys")]
    role = arguments.role
    with open_repository(arguments) as repository:
        if role == "root":
            renew_root(repository, signers_for(repository, ["root"], arguments))
        else:
            needed = {role, "online"} | ({"targets"} if repository.signed.is_interrupted else set())
            repository.renew(role, signers_for(repository, sorted(needed), arguments))
        return _done(arguments, repository, f"{role} is signed anew")


def run_rotate(arguments: argparse.Namespace) -> int:
    """Exchanges keys."""
    from cloud_tier.keys import new_key, write_key  # noqa: PLC0415
    from cloud_tier.rotation import key_ids, rotate  # noqa: PLC0415

    arguments.keys = arguments.keys or [Path("keys")]
    role = arguments.role
    with open_repository(arguments) as repository:
        ids, _ = key_ids(repository, role)
        old = _chosen(ids, arguments.old, role)
        passphrase = new_passphrase(unencrypted=arguments.unencrypted)
        needed = {"root": ["root"], "online": ["root"], "targets": ["root", "online"]}
        roles = needed.get(role, ["targets", "online"])
        signers = signers_for(repository, roles, arguments)
        added = [new_key() for _ in old]
        # On the disk first: a root that names a key which nobody has could not be taken back.
        written = [write_key(arguments.keys[0], role, key, passphrase) for key in added]
        try:
            rotate(
                repository,
                role,
                added=[signer for _, signer in added],
                removed=old,
                signers=signers,
            )
        except StartError:
            for one in written:
                one.path.unlink()
            raise
        done = f"{role} has new keys: {', '.join(str(one.path) for one in written)}"
        return _done(arguments, repository, done)


def run_add_region(arguments: argparse.Namespace) -> int:
    """Makes a region's key."""
    from cloud_tier.keys import new_key, write_key  # noqa: PLC0415
    from cloud_tier.rotation import add_region  # noqa: PLC0415
    from runtime.catalogue import check_name, role_of  # noqa: PLC0415

    arguments.keys = arguments.keys or [Path("keys")]
    check_name(arguments.region)
    with open_repository(arguments) as repository:
        signers = signers_for(repository, ["targets", "online"], arguments)
        passphrase = new_passphrase(unencrypted=arguments.unencrypted)
        key = new_key()
        written = write_key(arguments.keys[0], role_of(arguments.region), key, passphrase)
        try:
            add_region(repository, arguments.region, key[1], signers)
        except StartError:
            written.path.unlink()
            raise
        done = f"{written.path} may publish for {arguments.region}"
        return _done(arguments, repository, done)


def run_add_rollout(arguments: argparse.Namespace) -> int:
    """Makes the key for assignments, for a repository that has none."""
    from cloud_tier.keys import new_key, write_key  # noqa: PLC0415
    from cloud_tier.rotation import add_rollout  # noqa: PLC0415
    from runtime.catalogue import ROLLOUT_ROLE  # noqa: PLC0415

    arguments.keys = arguments.keys or [Path("keys")]
    with open_repository(arguments) as repository:
        signers = signers_for(repository, ["targets", "online"], arguments)
        passphrase = new_passphrase(unencrypted=arguments.unencrypted)
        key = new_key()
        written = write_key(arguments.keys[0], ROLLOUT_ROLE, key, passphrase)
        try:
            add_rollout(repository, key[1].public_key, signers)
        except StartError:
            written.path.unlink()
            raise
        done = f"{written.path} may assign models to devices{_said(passphrase)}"
        return _done(arguments, repository, done)


def _folders(files: list[KeyFile], row: dict[str, Any]) -> set[Path]:
    """Where keys of a role lie."""
    return {file.path.parent for file in files if any(file.is_of(key) for key in row["keys"])}


def _rollout_row(repository: Repository, files: list[KeyFile]) -> list[dict[str, Any]]:
    """Who may sign assignments; named in the targets, so that they expire with those."""
    from cloud_tier.rotation import key_ids  # noqa: PLC0415
    from runtime.catalogue import ROLLOUT_ROLE  # noqa: PLC0415

    try:
        ids, threshold = key_ids(repository, ROLLOUT_ROLE)
    except StartError:
        return []
    return [
        {
            "role": ROLLOUT_ROLE,
            "version": None,
            "threshold": threshold,
            "keys": ids,
            "keys_here": [key for key in ids if any(file.is_of(key) for file in files)],
            "expires": None,
            "days_left": None,
        }
    ]


def _said(passphrase: bytes | None) -> str:
    return "" if passphrase else ": it has no passphrase, whoever reads the file can assign"


def _chosen(ids: list[str], starts: list[str] | None, role: str) -> list[str]:
    if not starts:
        return ids
    chosen = []
    for start in starts:
        found = [one for one in ids if one.startswith(start)]
        if len(found) != 1:
            raise StartError(f"{start!r} names {len(found)} keys of {role}; its keys: {ids}")
        chosen += found
    return chosen


def _done(arguments: argparse.Namespace, repository: Repository, text: str) -> int:
    versions = {
        "root": repository.signed.root.signed.version,
        "targets": repository.signed.targets.signed.version,
        "snapshot": repository.signed.snapshot.signed.version,
        "timestamp": repository.signed.timestamp.signed.version,
    }
    if arguments.json:
        say_json({"done": text, "versions": versions})
    else:
        say(text)
    return 0
