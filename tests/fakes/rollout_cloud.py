"""A cloud tier as a program with a repository and a key, and devices that report to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from cloud_tier.keys import new_key, write_key
from fakes.catalogue import Cloud
from fakes.programs import Asker, Hierarchy, TierProgram
from fakes.rollout_fleet import FakeDevice, digest, up_item
from runtime import topics
from runtime.adapters.clock import SystemClock
from runtime.adapters.paho_bus import PahoBus
from runtime.exchange.items import up_message

REPORT_S = 0.5


@dataclass(frozen=True)
class Kind:
    """Which devices there are: the first of the versions serves."""

    model: str = "m"
    versions: tuple[int, ...] = (1, 2)
    num: int = 16
    regions: tuple[str, ...] = ("plant",)


class Devices:
    """Devices that report twice a second, through what stands for their gateway."""

    def __init__(self, bus: PahoBus, signer: CryptoSigner, kind: Kind) -> None:
        self.bus, self._clock = bus, SystemClock()
        self.all = [
            FakeDevice(
                f"d{one:02}", kind.regions[one % len(kind.regions)], bus, signer,
                serving=digest(kind.versions[0], kind.model), model=kind.model,
            )
            for one in range(kind.num)
        ]  # fmt: skip
        for device in self.all:
            device.listen("cloud")

    async def report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            now_s = self._clock.wall_s()
            for device in self.all if self.bus.is_connected else ():
                item = up_item(device.report(REPORT_S), now_s)
                self.bus.publish(up_message(item, topics.up("cloud", "gw"), now_s))


@contextlib.asynccontextmanager
async def rolling_cloud(
    hierarchy: Hierarchy, asker: Asker, tmp_path: Path, kind: Kind | None = None
) -> AsyncIterator[tuple[TierProgram, Devices]]:
    """All versions are published; the devices run the first."""
    kind = kind or Kind()
    hierarchy.broker()
    repository = Cloud(tmp_path / "repository")
    for version in kind.versions:
        repository.publish(version, model=kind.model)
    key = new_key()
    file = write_key(tmp_path / "keys", "rollout", key, None)
    program = hierarchy.tier(
        "cloud",
        "cloud-1",
        f"updates.repository={repository.folder}",
        f"rollouts.key_file={file.path}",
        "rollouts.tick_interval_s=0.1",
        "rollouts.bucket_s=1",
        "rollouts.repeat_s=1",
    )
    bus = PahoBus(hierarchy.address, client_id="devices")
    devices = Devices(bus, key[1], kind)
    await bus.start()
    await asker.ready(program)
    reporting = asyncio.create_task(devices.report())
    yield program, devices
    reporting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reporting
    await bus.close()
