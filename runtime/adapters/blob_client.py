"""Downloads model files from mirrors that nobody trusts, into files by digest.

Rules of this file:
  * whether there is room is asked first, for all files together;
  * a delta is tried once for each file, where the file that it starts from is here; whatever is
    wrong with it, the full file follows by itself;
  * a full download goes on where the last one ended, in this life or an earlier one;
  * ``runtime.core.mirrors`` says what is tried next; every wait is bounded and jittered;
  * only the disk's troubles are raised: those of mirrors are in the report;
  * it may be cancelled at any point: what arrived is kept, and no thread is left behind.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from runtime.adapters.backoff import Backoff
from runtime.adapters.blob_report import MAX_SETBACKS, DownloadReport, FileReport, How, Setback
from runtime.adapters.blob_transfer import Transfer, TransferError
from runtime.adapters.model_blobs import CHUNK_BYTES, Blobs
from runtime.adapters.off_loop import in_thread
from runtime.core.byte_ranges import Span
from runtime.core.mirrors import Mirrors, Patience, Trouble
from runtime.delta import apply_delta, is_worthwhile
from runtime.delta.make import WORTHWHILE_SHARE
from runtime.errors import ArtifactError, DeltaError
from runtime.manifest import ModelFile

# Old, new and delta are in memory at once while a delta is applied.
MAX_DELTA_FILE_BYTES = 64 << 20
MAX_DELTA_WAITS = 6
Progress = Callable[[ModelFile, int], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file, and the one that it may be made from: that of the same name, one release before."""

    file: ModelFile
    base: ModelFile | None = None


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """Waits between failures are drawn between the two; ``max_delta_file_bytes`` 0: no deltas."""

    patience: Patience = field(default_factory=Patience)
    min_wait_s: float = 1.0
    max_wait_s: float = 60.0
    max_delta_file_bytes: int = MAX_DELTA_FILE_BYTES


class _Course:
    """What has happened so far with one file."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer, self._began_at = transfer, transfer.received_bytes
        self.attempts = 0
        self._setbacks: list[Setback] = []

    def failed(self, mirror: str, trouble: Trouble, text: str) -> None:
        """Notes an attempt that failed; the latest are kept."""
        self._setbacks = [*self._setbacks, Setback(mirror, trouble, text)][-MAX_SETBACKS:]

    def report(self, file: ModelFile, how: How, mirror: str = "") -> FileReport:
        """How it ended."""
        num_bytes = self._transfer.received_bytes - self._began_at
        return FileReport(file, how, mirror, num_bytes, self.attempts, tuple(self._setbacks))


class BlobClient:
    """Downloads from ``mirrors`` (base URLs, the best first) into ``blobs``; one at a time.

    Args:
        transfer: how to ask; not shared with another download that runs at the same time.
        blobs: where the files go.
        mirrors: base URLs; the routes are those of ``runtime.adapters.blob_server``.
        check_room: raises ``NoRoomError`` where so many bytes more do not fit.
        options: how patient to be.
        chance: jitter.
        sleep: waits between attempts.

    Raises:
        ValueError: no mirror.
    """

    def __init__(
        self,
        transfer: Transfer,
        blobs: Blobs,
        mirrors: Sequence[str],
        *,
        check_room: Callable[[int], None],
        options: DownloadOptions | None = None,
        chance: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if not mirrors:
            raise ValueError("a download needs a mirror")
        self._transfer, self._blobs, self._check_room = transfer, blobs, check_room
        self._all_mirrors = self._mirrors = [mirror.rstrip("/") for mirror in mirrors]
        self._options = options or DownloadOptions()
        # It only has to differ between devices.
        self._chance = chance or random.Random()  # noqa: S311
        self._sleep = sleep

    async def fetch(
        self, wanted: Sequence[Wanted], on_progress: Progress | None = None
    ) -> DownloadReport:
        """Downloads what is not here; stops at the first file that no mirror has.

        ``on_progress`` is told of a file and how many bytes of it are here.

        Raises:
            NoRoomError: it does not fit.
            StorageError: the disk failed.
        """
        told = on_progress or (lambda _file, _num_bytes: None)
        here = [await in_thread(self._blobs.is_intact, one.file) for one in wanted]
        missing = {
            one.file.sha256: one.file
            for one, is_here in zip(wanted, here, strict=True)
            if not is_here
        }
        await in_thread(self._make_sure, list(missing.values()))
        reports: list[FileReport] = []
        is_lost = False
        for one, is_here in zip(wanted, here, strict=True):
            if is_here or (not is_lost and one.file.sha256 not in missing):
                report = FileReport(one.file, How.HERE)
            elif is_lost:
                report = FileReport(one.file, How.NOT_TRIED)
            else:
                report = await self._fetch(one, told)
                is_lost = report.how is How.FAILED
                missing.pop(one.file.sha256)
            reports.append(report)
        return DownloadReport(tuple(reports))

    def _make_sure(self, missing: Sequence[ModelFile]) -> None:
        left = [one.size_bytes - self._blobs.offset_bytes(one) for one in missing]
        if left:
            self._check_room(sum(left))

    async def _fetch(self, wanted: Wanted, told: Progress) -> FileReport:
        course = _Course(self._transfer)
        if await self._by_delta(wanted, course):
            told(wanted.file, wanted.file.size_bytes)
            return course.report(wanted.file, How.DELTA, self._mirrors[0])
        file, choice = wanted.file, Mirrors(len(self._mirrors), self._options.patience)
        backoff = Backoff(
            min_s=self._options.min_wait_s, max_s=self._options.max_wait_s, random=self._chance
        )
        step = choice.first
        while True:
            mirror, retry_after_s, num_bytes = self._mirrors[step.mirror], 0.0, 0
            before = await in_thread(self._blobs.offset_bytes, file)
            course.attempts += 1
            try:
                await self._attempt(mirror, file, before, told)
            except TransferError as error:
                trouble, retry_after_s = error.trouble, error.retry_after_s
                num_bytes = await in_thread(self._blobs.offset_bytes, file) - before
                course.failed(mirror, trouble, str(error))
            except ArtifactError as error:
                trouble = Trouble.DIGEST_MISMATCH
                course.failed(mirror, trouble, str(error))
            else:
                # The next file begins where this one was to be had.
                self._mirrors = self._mirrors[step.mirror :] + self._mirrors[: step.mirror]
                return course.report(file, How.FULL, mirror)
            after = choice.after(trouble, num_bytes)
            if after is None:
                return course.report(file, How.FAILED)
            step = after
            if step.waits:
                await self._wait(backoff.next_s(), retry_after_s)

    async def _attempt(self, mirror: str, file: ModelFile, offset: int, told: Progress) -> None:
        if offset < file.size_bytes:
            buffer = bytearray()

            async def keep() -> None:
                nonlocal offset
                # Taken out first: a cancelled append has taken place all the same.
                piece = bytes(buffer)
                buffer.clear()
                if piece:
                    offset += len(piece)
                    await in_thread(self._blobs.append, file, offset - len(piece), piece)
                    told(file, offset)

            async def receive(piece: bytes) -> None:
                buffer.extend(piece)
                if len(buffer) >= CHUNK_BYTES:
                    await keep()

            url = f"{mirror}/updates/blobs/{file.sha256}"
            try:
                span = Span(offset, file.size_bytes)
                await self._transfer.file(url, file.sha256, span, receive)
            finally:
                await keep()
        await in_thread(self._blobs.finish, file)

    async def _by_delta(self, wanted: Wanted, course: _Course) -> bool:
        """Whether the file is here now, made from another one."""
        file, base = wanted.file, wanted.base
        if base is None or not await self._is_usable(base, file):
            return False
        left = file.size_bytes - await in_thread(self._blobs.offset_bytes, file)
        most = min(left, int(WORTHWHILE_SHARE * file.size_bytes))
        mirror = self._mirrors[0]
        url = f"{mirror}/updates/deltas/{base.sha256}/{file.sha256}"
        try:
            delta = await self._patiently(url, most, course)
            if not is_worthwhile(len(delta), file.size_bytes):
                return False
            await in_thread(self._apply, base, file, delta)
        except TransferError as error:
            # That there is none, or that it is too large, is no failure.
            if error.trouble not in {Trouble.WITHHELD, Trouble.TOO_LONG}:
                course.failed(mirror, error.trouble, f"delta: {error}")
            return False
        except DeltaError as error:
            course.failed(mirror, Trouble.BAD_DELTA, str(error))
            return False
        return True

    async def _is_usable(self, base: ModelFile, file: ModelFile) -> bool:
        if base.sha256 == file.sha256:
            return False
        if max(file.size_bytes, base.size_bytes) > self._options.max_delta_file_bytes:
            return False
        return await in_thread(self._blobs.is_intact, base)

    async def _patiently(self, url: str, most: int, course: _Course) -> bytes:
        """A delta, which may still have to be made."""
        for _ in range(MAX_DELTA_WAITS):
            course.attempts += 1
            try:
                return await self._transfer.whole(url, most)
            except TransferError as error:
                if error.trouble is not Trouble.BUSY:
                    raise
                await self._wait(self._options.min_wait_s, error.retry_after_s)
        course.attempts += 1
        return await self._transfer.whole(url, most)

    def _apply(self, base: ModelFile, file: ModelFile, delta: bytes) -> None:
        old = self._blobs.read(base, 0, base.size_bytes)
        new = apply_delta(old, delta, sha256=file.sha256, size_bytes=file.size_bytes)
        self._blobs.put(file, new)

    async def _wait(self, at_least_s: float, asked_s: float) -> None:
        asked_s = min(asked_s, self._options.max_wait_s)
        await self._sleep(max(at_least_s, asked_s * self._chance.uniform(1.0, 1.25)))
