"""The signed catalogue as a device or a gateway sees it, through a mirror that it need not trust.

    catalogue.json    what was verified last (runtime.adapters.trust_bundle)
    entries/<sha256>  entries that were fetched, verified

Rules of this file:
  * python-tuf verifies; what it leaves open is closed here. It takes unreadable files for a first
    start and believes the clock, so versions may not fall below the floors of the store's record,
    and time not below what is known to have passed;
  * the order is: verify everything, then ``catalogue.json``, then the floors. A refresh that fails
    changes nothing but the roots that it has verified;
  * expiry stops the fetching of anything new. It never stops what was verified from being looked
    up, activated or gone back to;
  * an attack is a ``SecurityError``, an outage a ``FetchError``. Both leave what was verified;
  * the keys of a region speak of that region only; where they fail, the rest goes on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace
from securesystemslib.signer import Key
from tuf.api.metadata import Root

from runtime.adapters.model_store import ModelStore
from runtime.adapters.trust_bundle import (
    ROOT,
    SNAPSHOT,
    TARGETS,
    Bundle,
    Verified,
    is_signed_targets,
    read_bundle,
    read_root,
    verify,
    walk_roots,
    write_bundle,
)
from runtime.adapters.trust_entries import Entries
from runtime.adapters.trust_errors import Tampering, tampered
from runtime.adapters.trust_fetch import Refresh
from runtime.adapters.trust_time import expired_roles, with_signing_time
from runtime.catalogue import REGION_ROLE, CatalogueEntry
from runtime.core.floors import raise_metadata_floors
from runtime.core.releases import Record
from runtime.errors import (
    ExpiredError,
    FetchError,
    ReleaseError,
    SecurityError,
    TierwiseError,
)
from runtime.logs import get_logger
from runtime.ports import Clock
from runtime.ports_files import FileSystem, Mirror


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What is believed now: versions by role, and why a region is left out of it."""

    versions: dict[str, int]
    problems: dict[str, TierwiseError] = field(default_factory=dict)


class TrustedCatalogue:
    """Refreshes block, and take seconds on a slow link: run them off the event loop.

    One at a time, and not from several threads. Its record is that of ``store``.

    Args:
        files: a folder of its own, such as ``catalogue`` in the state folder.
        store: keeps the floors.
        mirror: whom to ask.
        root: the signed root that came with the package or was given at enrolment.
        clock: of this machine; it need not be right.
        build_s: the build date of the package, in seconds since 1970.
        regions: whose own entries are wanted, beside those for everybody.

    Raises:
        SecurityError: ``root`` is no root that is signed by its own keys.
        StorageError: the folder cannot be used.
    """

    def __init__(
        self,
        files: FileSystem,
        store: ModelStore,
        mirror: Mirror,
        *,
        root: bytes,
        clock: Clock,
        build_s: float,
        regions: Collection[str] = (),
    ) -> None:
        self._files, self._store, self._mirror = files, store, mirror
        self._anchor, self._clock, self._build_s = root, clock, build_s
        self._regions = tuple(sorted(regions))
        self._log = get_logger()
        self._entries = Entries(files)
        walk_roots(root, {})
        self._bundle = Bundle()
        self._verified: Verified | None = None
        self._load()

    @property
    def versions(self) -> dict[str, int]:
        """Of the metadata that are believed, by role; empty before the first refresh."""
        return self._verified.versions if self._verified else {}

    @property
    def may_fetch(self) -> bool:
        """Whether what is believed has not expired: new files may be fetched by it."""
        return self._verified is not None and self._expired(self._verified) is None

    @property
    def rollout_keys(self) -> dict[str, Key]:
        """Whose signatures on assignments count, by key id; nobody's where none is named."""
        return self._verified.rollout_keys() if self._verified else {}

    def refresh(self) -> Refreshed:
        """Asks the mirror for what is new, and believes it if all of it verifies.

        Raises:
            SecurityError: somebody has tampered with it, or serves what is old.
            ExpiredError: nobody has signed it for too long, or newer ones are kept back.
            FetchError: the mirror does not answer, or misses a file.
            StorageError: the disk failed.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="tierwise-") as folder:
                refreshed = self._refresh(Path(folder))
        except SecurityError as error:
            self._log.error("catalogue.tampered", because=error.because, error=str(error))
            raise
        except (FetchError, ExpiredError) as error:
            self._log.warning("catalogue.not_refreshed", code=error.code, error=str(error))
            raise
        for region, problem in refreshed.problems.items():
            self._log.error("catalogue.region_left_out", region=region, error=str(problem))
        self._log.info("catalogue.refreshed", versions=refreshed.versions)
        return refreshed

    def paths(self) -> tuple[str, ...]:
        """Where entries are, sorted: what is published and not withdrawn."""
        return tuple(sorted(self._verified.all_targets())) if self._verified else ()

    def entry(self, path: str) -> CatalogueEntry:
        """The entry at a path, from this disk or the mirror.

        Raises:
            ReleaseError: the catalogue has no such entry, or no longer.
            SecurityError: the mirror has something else in its place.
            ExpiredError: it is not here, and the catalogue has expired.
            FetchError: it is not here, and the mirror does not answer.
            ArtifactError: what was signed is no entry that is understood here.
            StorageError: the disk failed.
        """
        target = self._verified.all_targets().get(path) if self._verified else None
        if target is None or self._verified is None:
            raise ReleaseError(
                f"{path} is not in the catalogue: it was withdrawn, or never published there",
                because="not_in_catalogue",
            )
        found = self._entries.kept(target)
        if found is None:
            expired = self._expired(self._verified)
            if expired is not None:
                raise expired
            found = self._entries.fetch(target, self._mirror)
        return found

    def entries(self) -> dict[str, CatalogueEntry]:
        """All entries by path; the errors of ``entry``."""
        return {path: self.entry(path) for path in self.paths()}

    def _load(self) -> None:
        bundle = read_bundle(self._files)
        if bundle is None:
            return
        roots = walk_roots(self._anchor, bundle.roots)
        floors = self._store.record.metadata_floors
        self._bundle = Bundle(bundle.roots)
        if max(roots) < floors.get(ROOT, 0):
            self._log.error("catalogue.rolled_back", role=ROOT, version=max(roots))
            return
        try:
            verified = verify(roots.get(bundle.root_version, roots[min(roots)]), bundle.metadata)
        except SecurityError as error:
            self._log.error("catalogue.unusable", error=str(error))
            return
        others = {role: version for role, version in verified.versions.items() if role != ROOT}
        below = [role for role, version in others.items() if version < floors.get(role, 0)]
        if below:
            self._log.error("catalogue.rolled_back", roles=below)
        elif is_signed_targets(roots[max(roots)], bundle.metadata[TARGETS]):
            self._bundle, self._verified = bundle, verified

    def _refresh(self, folder: Path) -> Refreshed:
        refresh = Refresh(folder, self._anchor, self._bundle, self._mirror)
        try:
            refresh.run()
        finally:
            root = self._take_roots(refresh.roots())
        problems = self._regions_of(refresh)
        metadata = refresh.metadata(tuple(one for one in self._regions if one not in problems))
        verified = verify(root, metadata)
        clock_s = self._clock.wall_s()
        record = with_signing_time(self._store.record, verified, clock_s, self._build_s)
        for role, error in expired_roles(verified, record, clock_s, self._build_s).items():
            if role not in verified.regions:
                raise error
            problems[role.removeprefix(REGION_ROLE)] = error
            del verified.regions[role], metadata[role]
        versions = {role: number for role, number in verified.versions.items() if role != ROOT}
        try:
            record = raise_metadata_floors(record, versions)
        except ReleaseError as error:
            raise tampered(str(error), Tampering.ROLLBACK) from error
        self._keep(Bundle(self._bundle.roots, root.version, metadata), record)
        self._verified = verified
        self._entries.drop_others(verified.all_targets().values())
        return Refreshed(verified.versions, problems)

    def _take_roots(self, found: Mapping[int, bytes]) -> Root:
        """Keeps new roots, whatever else has failed: they may have ended what a thief could do."""
        roots = walk_roots(self._anchor, found)
        newest = roots[max(roots)]
        floors = self._store.record.metadata_floors
        floor = floors.get(ROOT, 0)
        if newest.version < floor:
            raise tampered(
                f"root has version {newest.version}, and {floor} was verified before",
                Tampering.ROLLBACK,
            )
        if newest.version > floor:
            kept = {version: found[version] for version in roots if version in found}
            bundle = replace(self._bundle, roots=self._bundle.roots | kept)
            reset = self._replaced(newest, bundle.roots.get(floor))
            targets = bundle.metadata.get(TARGETS)
            if targets is not None and not is_signed_targets(newest, targets):
                # Their keys were exchanged: whoever has the old ones is not to be believed.
                bundle, self._verified = Bundle(bundle.roots), None
            versions = {ROOT: newest.version} | dict.fromkeys(reset, 0)
            self._keep(bundle, raise_metadata_floors(self._store.record, versions, reset=reset))
        return newest

    def _replaced(self, newest: Root, before: bytes | None) -> set[str]:
        """Roles whose keys of before cannot sign any more, even all together."""
        if before is None:
            return set()
        old = read_root(before)
        replaced = set[str]()
        for name, role in newest.roles.items():
            left = set(role.keyids) & set(old.roles[name].keyids)
            if name != ROOT and len(left) < role.threshold:
                replaced.add(name)
        if SNAPSHOT in replaced:
            # What a region's version is was said by the snapshot, too.
            floors = self._store.record.metadata_floors
            replaced |= {name for name in floors if name.startswith(REGION_ROLE)}
        return replaced

    def _regions_of(self, refresh: Refresh) -> dict[str, TierwiseError]:
        problems: dict[str, TierwiseError] = {}
        for region in self._regions:
            try:
                refresh.run_region(region)
            except (SecurityError, ExpiredError, FetchError) as error:
                problems[region] = error
        return problems

    def _expired(self, verified: Verified) -> ExpiredError | None:
        record, clock_s = self._store.record, self._clock.wall_s()
        expired = expired_roles(verified, record, clock_s, self._build_s)
        return next(
            (error for role, error in expired.items() if role not in verified.regions), None
        )

    def _keep(self, bundle: Bundle, record: Record) -> None:
        if bundle != self._bundle:
            write_bundle(self._files, bundle)
        self._bundle = bundle
        if record != self._store.record:
            self._store.commit(record)
