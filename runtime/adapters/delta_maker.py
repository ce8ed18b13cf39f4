"""Deltas between files of a repository: made when they are asked for, kept for the next who asks.

Rules of this file:
  * one at a time, in a process of low priority; the queue is bounded, and who would have to wait
    for long is told to come again while the work goes on;
  * what is kept stays within its quota, the least recently used goes first; it is not trusted by
    anybody, so nothing here survives a loss of power on purpose;
  * that a delta is not worthwhile is remembered.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runtime.adapters.off_loop import in_thread
from runtime.adapters.open_file import OpenFile
from runtime.core.eviction import to_evict
from runtime.delta.make import WORTHWHILE_SHARE
from runtime.errors import OverloadedError, StorageError, TierwiseError
from runtime.logs import get_logger
from runtime.ports_updates import OpenBlob, Repository

# Old, new and delta are in memory at once, in the worker and on the device.
MAX_FILE_BYTES = 64 << 20
MAX_QUEUE = 8
MAX_REFUSED = 1024
LEVEL = 3
CPU_S = 600
WAIT_S = 5.0
_BLOCK_BYTES = 1 << 20
_NAME = re.compile(r"[0-9a-f]{64}-[0-9a-f]{64}\Z")
NOT_WORTHWHILE = "the delta is not worthwhile: fetch the full file"


class DeltaMaker:
    """Makes and keeps deltas in ``folder``, of ``max_bytes`` together; ``close`` it in the end.

    Raises:
        StorageError: the folder cannot be used.
    """

    def __init__(
        self, repository: Repository, folder: Path, *, max_bytes: int, wait_s: float = WAIT_S
    ) -> None:
        self._repository, self._folder, self._max_bytes = repository, folder, max_bytes
        self._wait_s = wait_s
        self._jobs: dict[str, asyncio.Task[str]] = {}
        self._refused: OrderedDict[str, str] = OrderedDict()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._log = get_logger()
        self.num_made = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._sizes = _found(folder)
        except OSError as error:
            raise StorageError(f"{folder} cannot hold deltas: {error.strerror}") from error

    @asynccontextmanager
    async def open(self, old: str, new: str) -> AsyncIterator[OpenBlob | str]:
        """The delta from one digest to another, or the reason why there is none.

        Raises:
            OverloadedError: it is being made, or others are; carries ``retry_after_ms``.
            UnavailableError: a file of it cannot be had now.
        """
        name = f"{old}-{new}"
        reason = self._refused.get(name, "")
        if not reason and name not in self._sizes:
            reason = await self._job(name, old, new)
        if reason:
            yield reason
            return
        try:
            file = (self._folder / name).open("rb")
        except OSError as error:
            self._sizes.pop(name, None)
            raise StorageError(f"a delta cannot be read: {error.strerror}") from error
        with file:
            self._sizes.move_to_end(name)
            yield OpenFile(file.fileno(), self._sizes[name])

    async def close(self) -> None:
        """Ends what is being made."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    async def _job(self, name: str, old: str, new: str) -> str:
        job = self._jobs.get(name)
        if job is None:
            if len(self._jobs) >= MAX_QUEUE:
                raise OverloadedError(
                    f"{MAX_QUEUE} deltas are being made: come again later",
                    retry_after_ms=self._wait_s * 1000,
                )
            job = asyncio.create_task(self._make(name, old, new), name=f"delta.{new[:12]}")
            self._jobs[name] = job
            job.add_done_callback(lambda _: self._jobs.pop(name))
        done, _ = await asyncio.wait({job}, timeout=self._wait_s)
        if not done:
            raise OverloadedError(
                "the delta is being made: come again later", retry_after_ms=self._wait_s * 1000
            )
        if job.cancelled():
            raise StorageError("no deltas are made any more: fetch the full file")
        return job.result()

    async def _make(self, name: str, old: str, new: str) -> str:
        """Puts it into the folder; returns the reason why it did not."""
        async with (
            self._one_at_a_time,
            self._repository.open(old, only_here=True) as old_blob,
            self._repository.open(new) as new_blob,
        ):
            if old_blob is None or new_blob is None:
                return f"the {'old' if old_blob is None else 'new'} file is unknown here"
            if max(old_blob.size_bytes, new_blob.size_bytes) > MAX_FILE_BYTES:
                return self._refuse(name, f"no deltas of files over {MAX_FILE_BYTES} bytes")
            most = int(WORTHWHILE_SHARE * new_blob.size_bytes)
            try:
                delta = await _in_process(old_blob, new_blob, most)
            except _WorkerError as error:
                self._log.warning("delta.not_made", old=old, new=new, error=str(error))
                return self._refuse(name, "the delta could not be made: fetch the full file")
        self.num_made += 1
        if not delta or len(delta) > min(most, self._max_bytes):
            return self._refuse(name, NOT_WORTHWHILE)
        excess = sum(self._sizes.values()) + len(delta) - self._max_bytes
        gone = to_evict(self._sizes, keep=(), excess_bytes=excess) or ()
        for one in gone:
            del self._sizes[one]
        try:
            await in_thread(self._keep, name, delta, gone)
        except OSError as error:
            raise StorageError(f"a delta cannot be kept: {error.strerror}") from error
        self._sizes[name] = len(delta)
        return ""

    def _refuse(self, name: str, reason: str) -> str:
        self._refused[name] = reason
        while len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)
        return reason

    def _keep(self, name: str, delta: bytes, gone: tuple[str, ...]) -> None:
        for one in gone:
            (self._folder / one).unlink(missing_ok=True)
        part = self._folder / "part"
        part.write_bytes(delta)
        part.replace(self._folder / name)


class _WorkerError(TierwiseError):
    """The process did not make it."""


def _found(folder: Path) -> OrderedDict[str, int]:
    paths = [path for path in folder.iterdir() if _NAME.match(path.name)]
    stats = sorted((path.stat().st_mtime, path.name, path.stat().st_size) for path in paths)
    return OrderedDict((name, size) for _, name, size in stats)


async def _in_process(old: OpenBlob, new: OpenBlob, most_bytes: int) -> bytes:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIERWISE_")}
    environment["PYTHONPATH"] = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    sizes = str(old.size_bytes), str(new.size_bytes)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "runtime.adapters.delta_worker",
            *sizes, str(LEVEL), str(CPU_S),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
    except OSError as error:
        raise _WorkerError(f"no process: {error.strerror}") from error
    try:
        async with asyncio.timeout(2 * CPU_S):
            delta = await _spoken_with(process, old, new, most_bytes)
            status = await process.wait()
    except (ConnectionError, TimeoutError) as error:
        raise _WorkerError(f"it ended early or hung: {error}") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status:
        raise _WorkerError(f"it ended with {status}")
    return delta


async def _spoken_with(
    process: asyncio.subprocess.Process, old: OpenBlob, new: OpenBlob, most_bytes: int
) -> bytes:
    to, back = process.stdin, process.stdout
    if to is None or back is None:
        raise RuntimeError("pipes were asked for")
    for blob in (old, new):
        for offset in range(0, blob.size_bytes, _BLOCK_BYTES):
            to.write(await blob.read(offset, _BLOCK_BYTES))
            await to.drain()
    to.close()
    delta = bytearray()
    while piece := await back.read(_BLOCK_BYTES):
        delta += piece
        if len(delta) > most_bytes:
            raise _WorkerError("it made more than is worthwhile")
    return bytes(delta)
