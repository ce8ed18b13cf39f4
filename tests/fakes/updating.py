"""A cloud that publishes and assigns, a gateway that hands out files, and devices that obey."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt
from securesystemslib.signer import CryptoSigner

from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.blobs import HASTY, QUICK, Counted, source
from fakes.catalogue import NOW_S, Cloud, LyingMirror
from fakes.models import WEIGHTS, linear_model, manifest_of
from fakes.waiting import eventually
from runtime import topics
from runtime.adapters.artifacts import describe_file, write_model
from runtime.adapters.assignment_signatures import signed
from runtime.adapters.golden import make_golden
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.model_process import LOADER
from runtime.adapters.onnx_backend import OnnxBackend
from runtime.adapters.outbox import _COLUMNS, item_of
from runtime.assignments import Assignment, DeviceReport, Do, decode_report
from runtime.catalogue import CatalogueEntry, Requirements, Variant, encode_entry
from runtime.common_settings import EscalationSettings, LogSettings, ModelSettings, StateSettings
from runtime.core.releases import Release
from runtime.core.rollout_states import Execution
from runtime.exchange.course import Identity
from runtime.manifest import ModelManifest, encode_manifest
from runtime.messages import Answer, ItemKind, Outcome, Tensors, Tier
from runtime.ports import Message
from runtime.updating.candidate import Candidate, OpenCandidate
from runtime.updating.fetching import Sources
from runtime.updating.place import Place
from runtime.updating.settings import UpdateSettings

MODEL, REGION, DEVICE = "tiny", "r", "camera-1"
DAY_S = 86_400.0
# Everything that takes minutes takes moments here.
BRISK = UpdateSettings(
    refresh_interval_s=0.2,
    report_interval_s=30.0,
    judge_interval_s=0.02,
    shadow_share=1.0,
    min_shadowed=5,
    min_agreement=0.5,
    soak_s=0.05,
    deadline_s=60.0,
    min_requests=10,
    latency_floor_ms=500.0,
)
Weights = npt.NDArray[np.float32]


def example(scale: float = 1.0) -> Tensors:
    """One row that the usual weights are sure of: the label is 0."""
    return {"x": np.array([[3.0 * scale, 2.0, 0.0]], np.float32)}


def place_of(settings: EdgeSettings) -> Place:
    """Where new models of that device arrive."""
    identity = Identity(Tier.EDGE, settings.agent, settings.region)
    return Place(identity, settings.model, settings.state, settings.escalation, settings.updates)


class Plant:
    """All that is above a device; ``gateway`` counts what was asked of it."""

    def __init__(self, folder: Path, gateway: Counted, cloud: Cloud) -> None:
        self.folder, self.gateway, self.cloud = folder, gateway, cloud
        self.mirror = LyingMirror(cloud.folder)
        self.signer = CryptoSigner.generate_ed25519()
        self.broker = MemoryBroker()
        self.bus = MemoryBus(self.broker, client_id="cloud")
        self.entries: dict[str, CatalogueEntry] = {}
        self.factory = folder / "factory"
        self.model(self.factory, WEIGHTS, "factory")

    def model(self, path: Path, weights: Weights, version: str, **changes: Any) -> Path:
        """A model folder of one linear layer."""
        files = {"tiny.onnx": changes.pop("onnx", None) or linear_model(weights)}
        write_model(path, manifest_of(files, name=MODEL, version=version, **changes), files)
        return path

    def publish(
        self,
        version: int,
        weights: Weights = WEIGHTS,
        *,
        golden: bool | bytes = True,
        policy: bytes = b"",
        hardware: tuple[str, ...] = (),
        region: str | None = None,
        name: str = MODEL,
        **changes: Any,
    ) -> str:
        """A version in the catalogue; its path there."""
        onnx = changes.pop("onnx", None) or linear_model(weights)
        files = {"tiny.onnx": onnx}
        manifest = manifest_of(files, name=MODEL, version=f"v{version}", **changes)
        contents = {**files, "manifest.json": encode_manifest(manifest)}
        if golden is True:
            backend = OnnxBackend.load(onnx, source="published")
            contents["golden.npz"] = make_golden(manifest, [backend])
        elif golden:
            contents["golden.npz"] = golden
        if policy:
            contents["policy.json"] = policy
        described = {one: describe_file(each) for one, each in contents.items()}
        variant = Variant(described, Requirements(hardware=hardware))
        entry = CatalogueEntry(name, version, Tier.EDGE, {"cpu": variant}, region=region)
        with self.cloud.open() as repository:
            by_digest = {described[one].sha256: each for one, each in contents.items()}
            repository.add(entry, by_digest, self.cloud.signers)
        self.entries[entry.path] = entry
        return entry.path

    def release(self, path: str) -> Release:
        return self.entries[path].release("cpu")

    def order(self, seq: int, do: Do = Do.TRIAL, path: str = "", **fields: Any) -> Assignment:
        """An assignment as the cloud would make it."""
        digest = ""
        if path:
            digest = hashlib.sha256(encode_entry(self.entries[path])).hexdigest()
        usual = {
            "device": DEVICE,
            "region": REGION,
            "rollout": "r1",
            "not_after_s": NOW_S + DAY_S,
            "entry_sha256": digest,
        }
        return Assignment(seq=seq, do=do, path=path, **{**usual, **fields})

    def say(self, payload: bytes, *, device: str = DEVICE) -> None:
        """Whatever this is, retained for a device."""
        topic = topics.assignment(REGION, device)
        self.bus.publish(Message(topic, payload, qos=1, retain=True))

    def assign(self, seq: int, path: str = "", do: Do = Do.TRIAL, **fields: Any) -> None:
        self.say(signed(self.order(seq, do, path, **fields), self.signer))

    def settings(self, name: str = "device", **updates: Any) -> EdgeSettings:
        """Those of a device with a state folder of that name."""
        root = self.folder / "root.json"
        root.write_bytes(self.cloud.root)
        return EdgeSettings(
            agent=DEVICE,
            region=REGION,
            state=StateSettings(folder=str(self.folder / name)),
            log=LogSettings(level="warning"),
            model=ModelSettings(folder=str(self.factory)),
            escalation=EscalationSettings(audit_rate=0.0),
            updates=msgspec.structs.replace(
                BRISK, **{"url": self.gateway.url, "root": str(root), **updates}
            ),
        )

    def agent(
        self,
        settings: EdgeSettings | None = None,
        *,
        client_id: str = DEVICE,
        loader: str = LOADER,
        sees: Callable[[Candidate], None] = lambda _: None,
        memory_limit_mb: int = 1024,
    ) -> Agent:
        settings = settings or self.settings()
        agent: Agent

        def opened(release: Release, folder: Path, serves: ModelManifest) -> Candidate:
            candidate = Candidate(
                release,
                folder,
                serves,
                memory_limit_mb=memory_limit_mb,
                clock=agent._clock,
                loader=loader,
            )
            sees(candidate)
            return candidate

        open_candidate: OpenCandidate = opened
        agent = Agent(
            settings,
            bus=MemoryBus(self.broker, client_id=client_id),
            sources=Sources(
                self.mirror,
                lambda _: {self.signer.public_key.keyid: self.signer.public_key},
                build_s=NOW_S - 30 * DAY_S,
                options=HASTY,
                limits=QUICK,
            ),
            open_candidate=open_candidate,
        )
        return agent


@asynccontextmanager
async def plant_in(folder: Path) -> AsyncIterator[Plant]:
    cloud = Cloud(folder / "repository")
    async with source(cloud.folder) as gateway:
        plant = Plant(folder, gateway, cloud)
        await plant.bus.start()
        try:
            yield plant
        finally:
            await plant.bus.close()


class Load:
    """Callers that never stop; ``answers`` are all that came back, errors fail the test."""

    def __init__(self, agent: Agent, inputs: Callable[[], Tensors] = example) -> None:
        self.answers: list[Answer] = []
        self._agent, self._inputs = agent, inputs
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(2)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        errors = [one for one in ended if not isinstance(one, asyncio.CancelledError)]
        assert errors == []

    @property
    def failed(self) -> list[Answer]:
        """Those without an answer."""
        return [one for one in self.answers if one.outcome is Outcome.FAILED]

    @property
    def versions(self) -> set[str]:
        return {one.model_version for one in self.answers}

    async def goes_on(self, num: int = 20) -> None:
        """Waits for so many answers more."""
        goal = len(self.answers) + num
        await eventually(lambda: len(self.answers) >= goal)

    async def _ask(self) -> None:
        while True:
            self.answers.append(await self._agent.infer(self._inputs(), budget_ms=5000))
            await asyncio.sleep(0.001)


def state_of(agent: Agent) -> str:
    assert agent.updater is not None
    return agent.updater.teller.tale.state


def reason_of(agent: Agent) -> str:
    assert agent.updater is not None
    return agent.updater.teller.tale.reason


def fault_of(agent: Agent) -> str:
    assert agent.updater is not None
    return agent.updater.teller.tale.fault


def serves(agent: Agent) -> str:
    """The version that answers."""
    return agent.flow.model.manifest.version


async def comes_to(agent: Agent, state: Execution, timeout_s: float = 12.0) -> None:
    await eventually(lambda: state_of(agent) == state, timeout_s)


async def reports_of(agent: Agent) -> list[DeviceReport]:
    """What it has put into its outbox about updates, in order."""
    assert agent._storage is not None
    query = f"SELECT {_COLUMNS} FROM items ORDER BY seq"  # noqa: S608
    items = await agent._storage.outbox.file.run(
        lambda connection: [item_of(row) for row in connection.execute(query).fetchall()]
    )
    return [decode_report(one.body) for one in items if one.kind is ItemKind.UPDATE]


def counted(agent: Agent, sample: str) -> float:
    """The sum of the metric samples that begin so."""
    text = agent.metrics.render()[0].decode()
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(sample)]
    return sum(map(float, values))
