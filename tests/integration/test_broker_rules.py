"""The broker configuration of deploy/mosquitto, with a real mosquitto and all tiers on it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cloud_tier import app as cloud
from cloud_tier.settings import CloudSettings
from edge_agent.agent import Agent
from edge_agent.settings import EdgeSettings
from fakes.waiting import eventually
from model_zoo.catalog import bundled_model
from regional_gateway import app as gateway
from regional_gateway.settings import GatewaySettings, UpstreamSettings
from runtime import topics
from runtime.adapters.broker import find_mosquitto
from runtime.adapters.dial import BrokerAddress
from runtime.adapters.paho_bus import PahoBus
from runtime.common_settings import (
    BrokerSettings,
    EscalationSettings,
    HttpSettings,
    ModelSettings,
    StateSettings,
)
from runtime.messages import Outcome, Tier
from runtime.ports import Message

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]
DEPLOY = Path(__file__).parents[2] / "deploy" / "mosquitto"
REGION, PASSWORD = "plant-north", "a password"
USERS = ("camera-1", "camera-2", "gateway-1", "cloud-1", "operator")


@dataclass(frozen=True)
class Broker:
    port: int

    def settings(self, user: str) -> BrokerSettings:
        return BrokerSettings(port=self.port, username=user, password=PASSWORD)

    @asynccontextmanager
    async def bus(
        self, user: str, heard: list[tuple[str, str]] | None = None, password: str = PASSWORD
    ) -> AsyncIterator[PahoBus]:
        """A client that notes the topic of whatever it may hear."""
        address = BrokerAddress("127.0.0.1", self.port, username=user, password=password)
        bus = PahoBus(address, client_id=f"test-{user}", backoff_min_s=0.05)
        if heard is not None:
            bus.subscribe("tierwise/#", lambda message: heard.append((user, message.topic)), qos=1)
        await bus.start()
        try:
            yield bus
        finally:
            await bus.close()


def placed(file: Path, places: dict[str, str]) -> str:
    """The text of a file with other places in it."""
    text = file.read_text()
    for name, place in places.items():
        assert name in text
        text = text.replace(name, place)
    return text


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A mosquitto with the files of deploy/; only the folders are others."""
    program = find_mosquitto()
    passwords = shutil.which("mosquitto_passwd")
    if program is None or passwords is None:
        assert os.environ.get("CI") != "true", "apt-get install mosquitto"
        pytest.skip("there is no mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    rules = placed(
        DEPLOY / "mosquitto.conf",
        {
            "listener 1883": f"listener {port} 127.0.0.1",
            "/etc/mosquitto/": f"{tmp_path}/",
        },
    )
    # The file that includes it, as on Debian: what is said in both is an error.
    main = placed(
        DEPLOY.parent / "compose" / "mosquitto.conf",
        {"/mosquitto/data/": f"{tmp_path}/", "/mosquitto/config/": f"{tmp_path}/"},
    )
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "tierwise.conf").write_text(rules)
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(main + ("user root\n" if os.geteuid() == 0 else ""))
    shutil.copy(DEPLOY / "tierwise.acl", tmp_path)
    known = tmp_path / "tierwise.passwords"
    known.touch()
    for user in USERS:
        subprocess.run([passwords, "-b", known, user, PASSWORD], check=True, capture_output=True)
    process = subprocess.Popen([program, "-c", settings], stderr=subprocess.DEVNULL)
    try:
        yield Broker(port)
    finally:
        process.terminate()
        process.wait(10)


@asynccontextmanager
async def hierarchy(broker: Broker, folder: Path) -> AsyncIterator[Agent]:
    """A device that is never sure, a gateway that is never sure, and a cloud."""
    stop = asyncio.Event()
    above = CloudSettings(
        cloud="cloud-1",
        broker=broker.settings("cloud-1"),
        http=HttpSettings(),
        state=StateSettings(folder=str(folder / "cloud")),
        model=ModelSettings(folder=str(bundled_model(Tier.CLOUD))),
    )
    between = GatewaySettings(
        gateway="gateway-1",
        region=REGION,
        broker=broker.settings("gateway-1"),
        upstream=UpstreamSettings(broker=broker.settings("gateway-1")),
        http=HttpSettings(),
        state=StateSettings(folder=str(folder / "gateway")),
        model=ModelSettings(folder=str(bundled_model(Tier.REGIONAL)), accept_at=1.0),
    )
    device = EdgeSettings(
        agent="camera-1",
        region=REGION,
        broker=broker.settings("camera-1"),
        state=StateSettings(folder=str(folder / "camera-1")),
        model=ModelSettings(folder=str(bundled_model(Tier.EDGE)), accept_at=1.0),
        escalation=EscalationSettings(audit_rate=0.0),
    )
    tiers = [
        asyncio.create_task(cloud.serve(above, stop)),
        asyncio.create_task(gateway.serve(between, stop)),
    ]
    try:
        async with Agent(device) as agent:
            yield agent
    finally:
        stop.set()
        await asyncio.gather(*tiers)


async def test_a_request_climbs_to_the_cloud_by_these_rules(broker: Broker, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).random((1, 28, 28), np.float32)
    async with hierarchy(broker, tmp_path) as agent, asyncio.timeout(40):
        while True:
            answer = await agent.infer({"image": picture}, budget_ms=500)
            if answer.tier is Tier.CLOUD:
                break
            await asyncio.sleep(0.05)

    assert answer.outcome is Outcome.ANSWERED
    assert [hop.tier for hop in answer.hops] == [Tier.EDGE, Tier.REGIONAL, Tier.CLOUD]


async def test_nobody_hears_or_says_what_is_for_or_from_others(broker: Broker) -> None:
    heard: list[tuple[str, str]] = []
    own, state = topics.agent_replies(REGION, "camera-1"), topics.gateway_state(REGION, "gateway-1")
    async with (
        broker.bus("camera-2", heard) as intruder,
        broker.bus("camera-1", heard) as device,
        broker.bus("gateway-1", heard) as serving,
        broker.bus("operator") as operator,
    ):
        for bus in (intruder, device, serving, operator):
            assert await bus.wait_connected(10)

        def says(bus: PahoBus, topic: str) -> None:
            bus.publish(Message(topic, b"{}", qos=1))

        # What all of them may hear: then they have subscribed.
        while len({name for name, _ in heard}) < 3:
            says(operator, topics.control(REGION))
            await asyncio.sleep(0.02)
        heard.clear()
        for forbidden in (
            topics.any_requests(REGION, "camera-1"),
            state,
            topics.agent_state(REGION, "camera-1"),
            topics.assignment(REGION, "camera-1"),
        ):
            says(intruder, forbidden)
        says(serving, topics.control("cloud"))
        # What was said before by the same client has arrived by then, or never will.
        says(intruder, topics.any_requests(REGION, "camera-2"))
        says(serving, own)
        says(serving, state)
        wanted = {
            ("gateway-1", topics.any_requests(REGION, "camera-2")),
            *(("gateway-1", topic) for topic in (own, state)),
            *(("camera-1", topic) for topic in (own, state)),
            ("camera-2", state),
        }
        await eventually(lambda: wanted <= set(heard))

    late = {(name, topics.control(REGION)) for name in ("camera-1", "camera-2", "gateway-1")}
    assert set(heard) - late == wanted
    assert heard.count(("camera-1", state)) == 1


async def test_the_cloud_hears_all_states_and_stops_regions_and_no_more(broker: Broker) -> None:
    heard: list[tuple[str, str]] = []
    device, serving = (
        topics.agent_state(REGION, "camera-1"),
        topics.gateway_state(REGION, "gateway-1"),
    )
    async with (
        broker.bus("cloud-1", heard) as cloud,
        broker.bus("camera-1", heard) as camera,
        broker.bus("gateway-1") as gateway_bus,
    ):
        for bus in (cloud, camera, gateway_bus):
            assert await bus.wait_connected(10)
        # Until both have subscribed.
        while len({name for name, _ in heard}) < 2:
            cloud.publish(Message(topics.control(REGION), b"{}", qos=1))
            await asyncio.sleep(0.02)
        heard.clear()
        for forbidden in (topics.agent_replies(REGION, "camera-1"), device, serving):
            cloud.publish(Message(forbidden, b"{}", qos=1))
        gateway_bus.publish(Message(topics.agent_replies(REGION, "camera-1"), b"{}", qos=1))
        camera.publish(Message(device, b"{}", qos=1))
        gateway_bus.publish(Message(serving, b"{}", qos=1))
        wanted = {("cloud-1", device), ("cloud-1", serving)}
        await eventually(lambda: wanted <= set(heard))

    told = {topic for name, topic in heard if name == "cloud-1"} - {topics.control(REGION)}
    assert told == {device, serving}
    assert heard.count(("cloud-1", device)) == heard.count(("cloud-1", serving)) == 1


async def test_who_has_no_password_is_not_let_in(broker: Broker) -> None:
    async with broker.bus("camera-1", password="a guess") as bus, broker.bus("camera-1") as known:
        assert await known.wait_connected(10)
        assert not await bus.wait_connected(0.5)
