"""Alerts reach people: webhooks and the broker are told once, and of the end, over restarts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from cloud_tier.alerts.http_api import AlertApi
from cloud_tier.alerts.remedies import REMEDIES
from cloud_tier.alerts.sinks import (
    MAX_TRIES,
    AlertTopics,
    Webhook,
    read_secret,
    signature,
)
from cloud_tier.operators.listener import operators_listening
from fakes.alert_desk import SECRET, Desk
from fakes.waiting import eventually
from fakes.webhooks import Receiver, receiving
from runtime import topics
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.core.alerts import Notice, Phase, Silence
from runtime.errors import StartError
from runtime.ports import Message
from tierwise.cli import main


class SlowSink:
    """A ``Sink`` that takes what it is told when it may."""

    name = "slow"

    def __init__(self) -> None:
        self.is_told, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.kinds: list[str] = []

    async def tell(self, notice: Notice, *, is_test: bool = False) -> str:
        assert not is_test
        self.kinds.append(notice.what.value)
        self.is_told.set()
        await self.may_go_on.wait()
        return ""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def test_a_webhook_is_told_once_signed_and_of_the_end(
    alert_desk: Desk, session: aiohttp.ClientSession, receiver: Receiver
) -> None:
    alert_desk.sinks = [Webhook(session, receiver.url, SECRET)]
    await alert_desk.start()
    await alert_desk.say("breaker_open")
    await alert_desk.turn()
    await alert_desk.turn()
    # A restart neither repeats nor forgets it.
    await alert_desk.start()
    await alert_desk.turn()
    await alert_desk.say()
    await alert_desk.turn()

    assert receiver.kinds == ["firing", "recovered"]
    assert receiver.said[0] | {"since_s": 0, "at_s": 0} == {
        "what": "firing",
        "key": "breaker_open.plant.camera-1",
        "kind": "breaker_open",
        "severity": "ticket",
        "region": "plant",
        "site": "camera-1",
        "summary": "words",
        "detail": "",
        "remedy": REMEDIES["breaker_open"],
        "since_s": 0,
        "at_s": 0,
        "test": False,
    }
    assert receiver.signatures == [signature(SECRET, body) for body in receiver.bodies]
    assert len(receiver.signatures[0]) == len("sha256=") + 64


async def test_what_was_not_told_before_a_restart_is_told_after_it(
    alert_desk: Desk, session: aiohttp.ClientSession, receiver: Receiver
) -> None:
    alert_desk.sinks = [Webhook(session, receiver.url, b"")]
    await alert_desk.start()
    await alert_desk.say("drift")
    await alert_desk.alerts.look()
    await alert_desk.start()
    await alert_desk.alerts.deliver()

    assert receiver.kinds == ["firing"]
    assert receiver.signatures == [""]


async def test_a_close_while_a_sink_is_told_lets_it_finish_and_tells_it_once(
    alert_desk: Desk,
) -> None:
    sink = SlowSink()
    alert_desk.sinks = [sink]
    alerts = await alert_desk.start()
    await alert_desk.say("breaker_open")
    alerts.start()
    await sink.is_told.wait()
    closing = asyncio.ensure_future(alerts.close())
    await asyncio.sleep(0)
    sink.may_go_on.set()
    await closing
    await alert_desk.start()
    await alert_desk.turn()

    assert sink.kinds == ["firing"]


async def test_a_receiver_that_fails_is_told_later_and_one_that_always_does_is_given_up(
    alert_desk: Desk, session: aiohttp.ClientSession, receiver: Receiver
) -> None:
    gone = Webhook(session, "http://127.0.0.1:9/", b"")
    receiver.statuses = [500, 429]
    alert_desk.sinks = [Webhook(session, receiver.url, b""), gone]
    await alert_desk.start()
    await alert_desk.say("drift")
    await alert_desk.turn()
    assert receiver.said == []
    for _ in range(MAX_TRIES):
        alert_desk.clock.advance(900.0)
        await alert_desk.say("drift")
        await alert_desk.turn()

    assert receiver.kinds == ["firing"]
    alert_desk.clock.advance(900.0)
    assert await alert_desk.alerts.store.waiting(alert_desk.clock.wall_s()) == []


async def test_a_redirect_to_another_host_is_not_followed(
    session: aiohttp.ClientSession, receiver: Receiver, alert_desk: Desk
) -> None:
    async with receiving() as other:
        receiver.statuses, receiver.location = [307], other.url
        alert_desk.sinks = [Webhook(session, receiver.url, SECRET)]
        await alert_desk.start()
        (why,) = (await alert_desk.alerts.test()).values()
        assert "another host" in why
        assert other.said == []

        receiver.statuses, receiver.location = [307], "/elsewhere"
        assert list((await alert_desk.alerts.test()).values()) == [""]
        assert [one["test"] for one in receiver.said] == [True]

        receiver.statuses = [307, 307, 307]
        (why,) = (await alert_desk.alerts.test()).values()
        assert "again and again" in why


async def test_an_alert_is_retained_at_the_broker_while_it_fires(alert_desk: Desk) -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker, client_id="cloud-1")
    await bus.start()
    alert_desk.sinks = [AlertTopics(bus, "cloud")]
    await alert_desk.start()
    await alert_desk.say("drift")
    await alert_desk.turn()

    topic = topics.alert("cloud", "drift.plant.camera-1")
    heard: list[Message] = []
    later = MemoryBus(broker, client_id="later")
    later.subscribe(topic, heard.append, qos=1)
    await later.start()
    await eventually(lambda: heard)
    await alert_desk.say()
    await alert_desk.turn()
    await eventually(lambda: len(heard) == 2)

    assert msgspec.json.decode(heard[0].payload)["what"] == "firing"
    assert heard[1].payload == b""
    await bus.close()
    (why,) = (await alert_desk.alerts.test()).values()
    assert "the broker does not take it" in why
    await later.close()


@pytest.mark.parametrize("secret", [b"", b"short", b"  \n", b"x" * 5000])
def test_a_secret_that_is_none_stops_the_start(tmp_path: Path, secret: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(secret)
    with pytest.raises(StartError, match="webhook_secret_file"):
        read_secret(str(path))
    with pytest.raises(StartError, match="cannot be read"):
        read_secret(str(tmp_path / "missing"))


def test_a_secret_is_read_without_the_end_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    assert read_secret(str(path)) == SECRET
    assert read_secret("") == b""


async def test_operators_list_silence_and_test(
    alert_desk: Desk,
    session: aiohttp.ClientSession,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    alert_desk.sinks = [Webhook(session, receiver.url, SECRET)]
    await alert_desk.start()
    await alert_desk.say("drift")
    await alert_desk.turn()
    state = tmp_path / "operators"
    state.mkdir()

    async def command(*words: str) -> tuple[int, str, str]:
        words = ("alerts", *words, "--operator", str(state / "operator.json"))
        code = await asyncio.to_thread(main, list(words))
        return code, *capsys.readouterr()

    async with operators_listening(
        state, 0, alert_desk.clock, [AlertApi(alert_desk.alerts).add_routes]
    ) as url:
        listed = await command("list")
        silenced = await command("silence", "drift*", "--for", "1h", "--by", "me", "--why", "known")
        for_later = await command("silence", "nobody.x", "--for", "30d", "--why", "a slip")
        too_long = await command("silence", "drift*", "--for", "400d", "--why", "x")
        tested = await command("test")
        receiver.statuses = [500]
        failed = await command("test", "--json")
        async with session.get(f"{url}/api/v1/alerts") as response:
            assert response.status == 401
        shown = msgspec.json.decode((await command("list", "--json"))[1])

    assert listed[0] == 0
    assert "drift.plant.camera-1" in listed[1]
    assert (silenced[0], tested[0], failed[0]) == (0, 0, 1)
    assert "by me: known" in silenced[1]
    assert re.search(r"SINCE .*\n.* \d\d:\d\d:\d\d [A-Z+-]", listed[1])
    assert "no alert has this key now" not in silenced[2]
    assert "no alert has this key now" in for_later[2]
    assert (too_long[0], "'400d' is not between 1s and 30d" in too_long[2]) == (2, True)
    assert ": taken" in tested[1]
    assert msgspec.json.decode(failed[1])["sinks"][0]["why"] == "it answers 500"
    (alert,) = shown["alerts"]
    assert (alert["phase"], alert["silenced"]) == (Phase.FIRING.value, True)
    assert [one["key"] for one in shown["silences"]] == ["drift*", "nobody.x"]
    assert receiver.kinds == ["firing", "firing"]


async def test_a_silence_outlives_a_restart_and_ends(
    alert_desk: Desk, session: aiohttp.ClientSession, receiver: Receiver
) -> None:
    alert_desk.sinks = [Webhook(session, receiver.url, b"")]
    await alert_desk.start()
    await alert_desk.alerts.store.silence(Silence("*", alert_desk.clock.wall_s() + 60.0, "me"))
    await alert_desk.say("drift")
    await alert_desk.turn()
    await alert_desk.start()
    await alert_desk.turn()
    assert receiver.said == []
    alert_desk.clock.advance(60.0)
    await alert_desk.turn()
    assert receiver.kinds == ["firing"]
    assert await alert_desk.alerts.store.silences(alert_desk.clock.wall_s()) == []
