"""What devices have said: the latest of each, what no rollout has seen yet, and what was counted.

Rules of this file:
  * a report is applied once, whoever sends it again, and in any order: the latest is the one of the
    highest epoch and number, and of one that is late only what it counted is taken;
  * a device says something about itself alone: whoever brings it says for whom it speaks;
  * numbers that cannot be are refused as a whole: nothing of such a report is believed;
  * all tables are bounded: by devices, by reports, by age and by rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from cloud_tier.rollouts.assigning import device_id
from cloud_tier.rollouts.reports import checked
from runtime.adapters.sqlite_file import SqliteFile
from runtime.assignments import Counted, DeviceReport, decode_report, encode
from runtime.errors import RequestError, StorageError

MAX_DEVICES = 100_000
# Reports that wait for the next step; a device repeats what it says until it changes.
MAX_HEARD = 20_000
_WINDOW = 62
_COUNTS = (
    "requests", "failed", "escalated", "slow", "shadowed", "disagreed", "audited", "audited_wrong",
)  # fmt: skip
_DEVICE = "id, epoch, number, seq, heard_s, region, hardware, model, version, serving, state"


class DeviceRow(NamedTuple):
    """What is known of a device; ``seq`` is the highest assignment that it has heard."""

    id: str
    epoch: int
    number: int
    seq: int
    heard_s: float
    region: str
    hardware: str
    model: str
    version: str
    serving: str
    state: str


class Heard(NamedTuple):
    """A report that is to be stepped through; ``number`` grows in the order of arrival.

    ``said_s`` is when the device said it: what has waited in an outbox is no sign of life.
    """

    number: int
    device: str
    said_s: float
    report: DeviceReport


class Sums(NamedTuple):
    """Requests of a device in a window of time; the others are parts of them."""

    requests: int = 0
    failed: int = 0
    escalated: int = 0
    slow: int = 0
    shadowed: int = 0
    disagreed: int = 0
    audited: int = 0
    audited_wrong: int = 0


class Register:
    """Everything raises ``StorageError`` where the disk fails.

    Args:
        file: that of the store.
        retention_s: how long counts are kept; it covers a baseline, a wave and its last look.
        max_rows: of counts; over it the oldest are dropped.
        bucket_s: counts of so much time are kept together.
        device_age_s: a device that was silent for longer is forgotten.
    """

    def __init__(
        self,
        file: SqliteFile,
        *,
        retention_s: float = 2 * 86_400.0,
        max_rows: int = 2_000_000,
        bucket_s: int = 300,
        device_age_s: float = 30 * 86_400.0,
        max_devices: int = MAX_DEVICES,
    ) -> None:
        self._file, self._retention_s, self._max_rows = file, retention_s, max_rows
        self.bucket_s = bucket_s
        self._device_age_s, self._max_devices = device_age_s, max_devices

    async def hear(self, body: bytes, origin: str, *, said_s: float, now_s: float) -> str:
        """Takes a report in: ``latest``, ``late``, or ``known`` where it was taken before.

        Args:
            body: a ``DeviceReport`` as JSON.
            origin: ``region/site`` for whom the sender speaks.
            said_s: when the device said it, by our clock.
            now_s: the wall clock.

        Raises:
            MalformedBodyError: it is no report, or one that cannot be.
            RequestError: it is about another device than its sender's, or there is no room.
            StorageError: it was not stored; it is to come again.
        """
        report = checked(body, origin)
        return await self._file.run(
            lambda connection: self._take(connection, report, min(said_s, now_s), now_s)
        )

    async def waiting(self, limit: int) -> list[Heard]:
        """Reports that no rollout has seen, the oldest first."""
        query = "SELECT number, device, said_s, body FROM heard ORDER BY number LIMIT ?"
        rows = await self._file.run(
            lambda connection: connection.execute(query, (limit,)).fetchall()
        )
        return [Heard(num, one, at_s, decode_report(body)) for num, one, at_s, body in rows]

    async def done(self, number: int) -> None:
        """Every rollout has seen those up to here."""
        query = "DELETE FROM heard WHERE number <= ?"
        await self._file.run(lambda connection: connection.execute(query, (number,)).rowcount)

    async def devices(self) -> list[DeviceRow]:
        """All that are known."""
        query = f"SELECT {_DEVICE} FROM devices ORDER BY id"  # noqa: S608 - names of our own
        return await self._file.run(
            lambda connection: [DeviceRow(*row) for row in connection.execute(query)]
        )

    async def some(self, ids: Iterable[str]) -> list[DeviceRow]:
        """Those of these that are known."""
        query = f"SELECT {_DEVICE} FROM devices WHERE id = ?"  # noqa: S608 - names of our own
        names = tuple(ids)

        def work(connection: sqlite3.Connection) -> list[DeviceRow]:
            rows = (connection.execute(query, (name,)).fetchone() for name in names)
            return [DeviceRow(*row) for row in rows if row is not None]

        return await self._file.run(work)

    async def counted(
        self,
        devices: Sequence[str],
        from_s: float,
        to_s: float,
        *,
        only: frozenset[str] = frozenset(),
        but: frozenset[str] = frozenset(),
    ) -> dict[str, Sums]:
        """Sums by device of what began in ``[from_s, to_s)``, to a bucket.

        Only of the releases ``only``, where some are named, and of none of ``but``. What was in no
        arm of a split has no release, and is in it only where that is named.
        """
        sums = ", ".join(f"sum({name})" for name in _COUNTS)
        query = (
            f"SELECT release, {sums} FROM counted WHERE device = ? "  # noqa: S608 - as above
            "AND bucket_s >= ? AND bucket_s < ? GROUP BY release"
        )

        def work(connection: sqlite3.Connection) -> dict[str, Sums]:
            found: dict[str, Sums] = {}
            for device in devices:
                rows = [
                    row[1:]
                    for row in connection.execute(query, (device, from_s, to_s))
                    if (row[0] in only if only else row[0]) and row[0] not in but
                ]
                if rows:
                    found[device] = Sums(*(int(sum(column)) for column in zip(*rows, strict=True)))
            return found

        return await self._file.run(work)

    async def tidy(self, now_s: float) -> None:
        """Drops what is too old, or too much."""

        def work(connection: sqlite3.Connection) -> None:
            oldest = now_s - self._retention_s
            connection.execute("DELETE FROM counted WHERE bucket_s < ?", (oldest,))
            (num,) = connection.execute("SELECT count(*) FROM counted").fetchone()
            if num > self._max_rows:
                query = "SELECT bucket_s FROM counted ORDER BY bucket_s LIMIT 1 OFFSET ?"
                (until,) = connection.execute(query, (num - self._max_rows,)).fetchone()
                connection.execute("DELETE FROM counted WHERE bucket_s < ?", (until,))
            oldest = now_s - self._device_age_s
            connection.execute("DELETE FROM devices WHERE heard_s < ?", (oldest,))

        await self._file.run(work)

    def _take(
        self, connection: sqlite3.Connection, report: DeviceReport, said_s: float, now_s: float
    ) -> str:
        device = device_id(report.region, report.device)
        query = "SELECT epoch, number, numbers, seq, heard_s FROM devices WHERE id = ?"
        row = connection.execute(query, (device,)).fetchone()
        if row is None:
            (num,) = connection.execute("SELECT count(*) FROM devices").fetchone()
            if num >= self._max_devices:
                raise RequestError(f"{num} devices are known; {device} is one too many")
            row = (report.epoch, -1, 0, 0, 0.0)
        epoch, number, numbers, seq, heard_s = row
        ahead = report.number - number if report.epoch == epoch else _WINDOW
        if report.epoch < epoch or ahead <= -_WINDOW or (ahead <= 0 and numbers >> -ahead & 1):
            return "known"
        is_latest = report.epoch > epoch or ahead > 0
        if is_latest:
            is_near = report.epoch == epoch and ahead < _WINDOW
            numbers = (numbers << ahead if is_near else 0) % 2**_WINDOW | 1
            self._keep_latest(
                connection, device, report, (numbers, seq, max(heard_s, said_s), said_s)
            )
        else:
            query = "UPDATE devices SET numbers = ?, seq = max(seq, ?) WHERE id = ?"
            connection.execute(query, (numbers | 1 << -ahead, report.seq, device))
        for counted in report.counted:
            self._count(connection, device, counted, said_s, now_s)
        return "latest" if is_latest else "late"

    def _keep_latest(
        self,
        connection: sqlite3.Connection,
        device: str,
        report: DeviceReport,
        kept: tuple[int, int, float, float],
    ) -> None:
        numbers, seq, heard_s, said_s = kept
        connection.execute(
            "INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                device,
                report.epoch,
                report.number,
                numbers,
                # What was once heard is not forgotten: numbers never go back.
                max(seq, report.seq),
                heard_s,
                report.region,
                report.hardware,
                report.model,
                report.version,
                report.serving,
                report.state,
            ),
        )
        (num,) = connection.execute("SELECT count(*) FROM heard").fetchone()
        if num >= MAX_HEARD:
            raise StorageError(f"{num} reports of devices wait already")
        bare = msgspec.structs.replace(report, counted=())
        connection.execute(
            "INSERT INTO heard (device, said_s, body) VALUES (?, ?, ?)",
            (device, said_s, encode(bare)),
        )

    def _count(
        self,
        connection: sqlite3.Connection,
        device: str,
        counted: Counted,
        said_s: float,
        now_s: float,
    ) -> None:
        middle_s = said_s - counted.over_s / 2
        # No release: of requests that were in no arm of a split.
        if middle_s < now_s - self._retention_s:
            return
        bucket_s = int(middle_s // self.bucket_s) * self.bucket_s
        values = (
            counted.requests,
            min(counted.requests, counted.errors + counted.invalid),
            counted.escalated,
            counted.slow,
            counted.shadowed,
            counted.disagreed,
            counted.audited,
            counted.audited_wrong,
        )
        added = ", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTS)
        connection.execute(
            f"INSERT INTO counted VALUES ({', '.join('?' * 11)}) "  # noqa: S608 - as above
            f"ON CONFLICT (device, release, bucket_s) DO UPDATE SET {added}",
            (device, counted.release, bucket_s, *values),
        )
