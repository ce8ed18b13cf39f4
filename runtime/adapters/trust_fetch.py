"""One refresh by python-tuf: from what was verified before to what a mirror has now.

python-tuf keeps its state in a folder that it neither syncs nor changes as a whole, and takes what
it cannot read there for a first start. So that folder is made anew for every refresh, and thrown
away; what outlives it is decided by ``runtime.adapters.trust``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuf.api import exceptions
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from runtime.adapters.trust_bundle import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Bundle
from runtime.adapters.trust_entries import whole_pieces
from runtime.adapters.trust_errors import verifying
from runtime.catalogue import REGION_ROLE, role_of
from runtime.errors import FetchError, MissingFileError
from runtime.ports_files import Mirror

METADATA = "metadata"
# No address of any network: what follows is a path of the mirror.
_BASE = "mirror:/"
_HISTORY = "root_history"
_LIMITS = UpdaterConfig(
    max_root_rotations=64,
    max_delegations=8,
    root_max_length=128 * 1024,
    timestamp_max_length=16 * 1024,
    snapshot_max_length=512 * 1024,
    targets_max_length=8 << 20,
)


class Refresh:
    """A refresh in ``folder``, an empty one that is thrown away afterwards.

    Raises:
        SecurityError: ``anchor``, the root of the package, is none.
    """

    def __init__(self, folder: Path, anchor: bytes, before: Bundle, mirror: Mirror) -> None:
        self._folder = folder
        history = folder / _HISTORY
        history.mkdir()
        for version, contents in before.roots.items():
            (history / f"{version}.{ROOT}.json").write_bytes(contents)
        for role, contents in before.metadata.items():
            (folder / f"{role}.json").write_bytes(contents)
        with verifying():
            self._updater = Updater(
                str(folder),
                f"{_BASE}{METADATA}/",
                fetcher=_Fetcher(mirror),
                config=_LIMITS,
                bootstrap=anchor,
            )

    def run(self) -> None:
        """Fetches and verifies root, timestamp, snapshot and targets.

        Raises:
            SecurityError: something is not what its signatures and digests say.
            ExpiredError: it has expired by the clock of this machine.
            FetchError: the mirror does not have it, or does not answer.
            StorageError: the folder cannot be used.
        """
        with verifying():
            self._updater.refresh()

    def run_region(self, region: str) -> None:
        """The same for what is signed for one region; there may be nothing."""
        with verifying():
            # Looking for a path is the public way to have a delegated role fetched.
            self._updater.get_targetinfo(f"region/{region}/any/0.json")

    def roots(self) -> dict[int, bytes]:
        """All roots that python-tuf has, by version; also after a refresh that failed."""
        with verifying():
            return {
                int(path.name.partition(".")[0]): path.read_bytes()
                for path in (self._folder / _HISTORY).iterdir()
            }

    def metadata(self, regions: tuple[str, ...]) -> dict[str, bytes]:
        """The metadata of the usual roles, and of those of these regions that are there."""
        paths = {role: self._folder / f"{role}.json" for role in (TIMESTAMP, SNAPSHOT, TARGETS)}
        paths |= {role_of(one): self._folder / f"{role_of(one)}.json" for one in regions}
        with verifying():
            return {
                role: path.read_bytes()
                for role, path in paths.items()
                if not role.startswith(REGION_ROLE) or path.exists()
            }


class _Fetcher(FetcherInterface):
    """python-tuf's transport: a mirror; python-tuf itself bounds the lengths."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = url.removeprefix(_BASE)
        try:
            yield from whole_pieces(self._mirror, path)
        except MissingFileError as error:
            raise exceptions.DownloadHTTPError(str(error), 404) from error
        except FetchError as error:
            raise exceptions.DownloadError(str(error)) from error
