"""A cloud's rollout controller, and devices that hear assignments and report, over one bus."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from securesystemslib.signer import CryptoSigner, Signer

from cloud_tier.rollouts.catalogue import CatalogueReader
from cloud_tier.rollouts.committing import Kept
from cloud_tier.rollouts.controller import Controller
from cloud_tier.rollouts.desk import Desk
from cloud_tier.rollouts.register import Register
from cloud_tier.rollouts.requests import CommandRequest, StartRequest
from cloud_tier.rollouts.schema import open_file
from cloud_tier.rollouts.sending import Post
from cloud_tier.rollouts.store import RolloutStore
from fakes.catalogue import Cloud, entry
from fakes.clock import FakeClock
from fakes.storing import StoringTier, storing_cloud
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.assignment_signatures import verified
from runtime.adapters.blob_source import FolderRepository
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.sqlite_file import SqliteFile
from runtime.assignments import Assignment, Counted, DeviceReport, Do, encode
from runtime.exchange.items import up_message
from runtime.messages import ItemKind
from runtime.ports import Message, MessageBus, OutboxItem

REGIONS = ("eu", "us", "cloud")
# Everything small, so that a test sees all of a rollout.
PLAN: dict[str, Any] = {
    "shares": [0.1, 0.4, 1.0],
    "gate": {"looks_s": [600.0, 1200.0], "margin": 1.5},
    "shadow": None,
    "baseline_s": 1800.0,
    "fill_s": 3600.0,
}
STEP_S = 300.0
REQUESTS, AUDITED = 4000, 1000


def digest(version: int, model: str = "m") -> str:
    """The manifest of a version that the fake catalogue has."""
    one = entry(version, model=model)
    return one.release("cpu").name


@dataclass
class FakeDevice:
    """A device with its floor of numbers; ``signs`` are the keys that it believes."""

    site: str
    region: str
    bus: MessageBus
    signer: Signer
    hardware: str = "pi5"
    serving: str = digest(1)
    seq: int = 0
    number: int = 0
    epoch: int = 1
    state: str = ""
    reason: str = ""
    before: str = ""
    said: str = ""
    is_online: bool = True
    beside: str = ""
    share: float = 0.0
    obeyed: list[Assignment] = field(default_factory=list)
    heard: list[Assignment] = field(default_factory=list)
    ran: set[str] = field(default_factory=set)
    error_rate: dict[str, float] = field(default_factory=dict)
    wrong_share: dict[str, float] = field(default_factory=dict)
    escalated_share: dict[str, float] = field(default_factory=dict)
    model: str = "m"

    def listen(self, cloud_region: str) -> None:
        topic = topics.assignment_below(cloud_region, self.region, self.site)
        if self.region == cloud_region:
            topic = topics.assignment(self.region, self.site)
        self.bus.subscribe(topic, self._on_assignment, qos=1)

    def _on_assignment(self, message: Message) -> None:
        keys = {self.signer.public_key.keyid: self.signer.public_key}
        told = verified(message.payload, keys, device=self.site, region=self.region)
        self.heard.append(told)
        if self.is_online and told.seq > self.seq:
            self.seq = told.seq
            self.obeyed.append(told)
            self.obey(told)

    def obey(self, told: Assignment) -> None:
        self.beside = ""
        if told.do is Do.SHADOW:
            self.state = "shadow"
        elif told.do is Do.SPLIT:
            self.state, self.share = "split", told.share
            self.beside = self._digest_at(told.path)
        elif told.do is Do.TRIAL:
            self.before, self.state = self.serving, "confirmed"
            self.serving = self._digest_at(told.path)
        elif told.do is Do.ROLL_BACK:
            self.serving, self.state = told.to or self.before, "rolled_back"
        else:
            self.state = ""
        self.ran.add(self.serving)

    def _digest_at(self, path: str) -> str:
        return digest(int(path.rsplit("/", maxsplit=1)[-1].removesuffix(".json")), self.model)

    def report(self, over_s: float = 0.0, **more: Any) -> DeviceReport:
        self.number += 1
        counted: tuple[Counted, ...] = ()
        if over_s and self.beside:
            counted = tuple(
                Counted(
                    release,
                    over_s,
                    num,
                    errors=int(num * self.error_rate.get(release, 0.02)),
                    escalated=int(num * self.escalated_share.get(release, 0.2)),
                )
                for release, num in (
                    (self.serving, int(REQUESTS * (1 - self.share))),
                    (self.beside, int(REQUESTS * self.share)),
                    ("", 100),
                )
            )
        elif over_s:
            errors = int(REQUESTS * self.error_rate.get(self.serving, 0.02))
            audited = AUDITED if self.wrong_share else 0
            counted = (
                Counted(
                    self.serving,
                    over_s,
                    REQUESTS,
                    errors=errors,
                    escalated=int(REQUESTS * self.escalated_share.get(self.serving, 0.2)),
                    slow=200,
                    shadowed=1000 if self.state == "shadow" else 0,
                    audited=audited,
                    audited_wrong=int(audited * self.wrong_share.get(self.serving, 0.0)),
                ),
            )
        said = DeviceReport(
            self.site, self.region, self.epoch, self.number, self.serving, self.model, "1",
            self.hardware, self.seq, self.state, self.reason, counted=counted,
        )  # fmt: skip
        return msgspec.structs.replace(said, **more)


def up_item(report: DeviceReport | bytes, now_s: float, origin: str = "") -> OutboxItem:
    body = report if isinstance(report, bytes) else encode(report)
    if not origin and isinstance(report, DeviceReport):
        origin = f"{report.region}/{report.device}"
    item_id = hashlib.sha256(body + origin.encode()).hexdigest()[:32]
    return OutboxItem(item_id, ItemKind.UPDATE, now_s, body, origin=origin)


class Service:
    """One controller with everything around it, on a folder."""

    def __init__(
        self, folder: Path, bus: MemoryBus, cloud: Cloud, signer: Signer, clock: FakeClock,
        name: str = "c1",
    ) -> None:  # fmt: skip
        self.file: SqliteFile = open_file(folder)
        self.store = RolloutStore(self.file)
        self.register = Register(self.file, bucket_s=int(STEP_S))
        self.controller = Controller(
            name,
            self.store,
            register=self.register,
            catalogue=CatalogueReader(FolderRepository(cloud.folder)),
            post=Post(bus, signer, region="cloud", clock=clock),
            clock=clock,
        )
        self.desk = Desk(self.controller)

    async def start(self, version: int = 2, **more: Any) -> Kept:
        settings = {**PLAN, **more.pop("settings", {})}
        words = {"by": "anna", "why": "better", "id": "r1", **more}
        request = StartRequest(model="m", version=version, settings=settings, **words)
        return await self.desk.start(request)

    async def ask(self, name: str, rollout: str = "r1", by: str = "anna") -> Kept:
        return await self.desk.command(rollout, name, CommandRequest(by=by, why="because"))


class Fleet:
    """A cloud tier that takes reports over, a controller, and devices; time is the test's."""

    def __init__(
        self, folder: Path, cloud: Cloud, num: int = 30, *, model: str = "m", serving: int = 1
    ) -> None:
        self.folder, self.cloud = folder, cloud
        self.clock = FakeClock(wall_s=1_800_000_000.0)
        self.signer = CryptoSigner.generate_ed25519()
        self.broker = MemoryBroker()
        self.tier: StoringTier = storing_cloud(self.broker, folder, clock=self.clock)
        self.device_bus = MemoryBus(self.broker, client_id="devices")
        self.devices = [
            FakeDevice(
                f"d{one:02}", REGIONS[one % len(REGIONS)], self.device_bus, self.signer,
                serving=digest(serving, model), model=model,
            )
            for one in range(num)
        ]  # fmt: skip
        for device in self.devices:
            device.listen("cloud")
        self._exits = AsyncExitStack()
        self.words: list[Message] = []

    async def __aenter__(self) -> Self:
        await self._exits.enter_async_context(self.tier)
        self.device_bus.subscribe("tierwise/v1/cloud/agent/+/rep", self.words.append, qos=1)
        await self.device_bus.start()
        self._exits.push_async_callback(self.device_bus.close)
        await self.device_bus.wait_connected(10)
        await self.tier.bus.wait_connected(10)
        self.service = self.serve()
        await self.service.controller.take_over()
        return self

    def serve(self, name: str = "c1", folder: str = "state") -> Service:
        """A controller; another one on the same folder shares its store."""
        service = Service(
            self.folder / folder, self.tier.bus, self.cloud, self.signer, self.clock, name
        )
        self._exits.callback(service.file.close)
        assert self.tier.receiver is not None
        self.tier.receiver.appliers = {ItemKind.UPDATE: service.controller.hear}
        return service

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    def send(self, report: DeviceReport | bytes, origin: str = "", gateway: str = "gw") -> None:
        """What a gateway brings of a device."""
        item = up_item(report, self.clock.wall_s(), origin)
        self.device_bus.publish(up_message(item, topics.up("cloud", gateway), self.clock.wall_s()))

    async def report_all(self, over_s: float = 0.0) -> None:
        """Every device that is there reports, and it has arrived."""
        there = [one for one in self.devices if one.is_online]
        for one in there:
            self.send(one.report(over_s))
        await eventually(lambda: self._num_words() >= len(there), 10)
        self.words.clear()

    def _num_words(self) -> int:
        return len(self.words)

    async def pass_time(self, seconds: float = STEP_S) -> None:
        """Everybody works for a while, says so, and is heard."""
        self.clock.advance(seconds)
        await self.report_all(seconds)
        await self.settle()

    async def settle(self) -> None:
        """Devices do what they are told and say so, until there is nothing more."""
        for _ in range(3):
            await self.service.controller.tick()
            told = {
                (one.region, one.device): one.seq for one in await self.service.store.unheard(1000)
            }
            there = [one for one in self.devices if one.is_online]
            await eventually(
                lambda there=there, told=told: all(  # type: ignore[misc]
                    one.seq >= told.get((one.region, one.site), 0) for one in there
                )
            )
            if not told:
                return
            await self.report_all()

    async def baseline(self, seconds: float = 1800.0) -> None:
        for _ in range(int(seconds // STEP_S)):
            await self.pass_time()

    async def kept(self, rollout: str = "r1") -> Kept:
        return await self.service.store.get(rollout)

    async def until(self, *phases: str, limit: int = 60) -> Kept:
        """Time passes until the rollout is there; the test fails where it never is."""
        for _ in range(limit):
            kept = await self.kept()
            if kept.rollout.phase in phases:
                return kept
            await self.pass_time()
        raise AssertionError(f"still {kept.rollout.phase}: {kept.rollout.asked}")
