"""``tierwise control`` without processes behind it: what it refuses, and what it says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.brokers import launch
from fakes.ports import free_port
from fakes.stops import state, stop
from runtime import topics
from runtime.adapters.broker import RunningBroker
from runtime.adapters.memory_bus import MemoryBroker, MemoryBus
from runtime.adapters.paho_bus import PahoBus
from runtime.messages import Birth, ControlState, Offline, ServedModel, Tier, encode_control
from runtime.ports import Message
from tierwise import control_desk
from tierwise.cli import main
from tierwise.control_desk import Desk

KILL = ("kill", "--scope", "all", "--mode", "stop")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    with launch(tmp_path, "auto") as broker:
        yield broker


def run(broker: RunningBroker, *words: str) -> int:
    at = ("--region", "r", "--broker", str(broker.address), "--json")
    return main(["control", *words, *at])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((*KILL, "--region", "r"), "--why"),
        ((*KILL, "--region", "r", "--why", " "), "--why needs a reason"),
        ((*KILL, "--region", "r/s", "--why", "x"), "no usable id"),
        ((*KILL, "--region", "r", "--why", "x", "--target", "y"), "--scope all takes no --target"),
        ((*KILL, "--region", "r", "--why", "x", "--broker", "h:x"), "is not HOST[:PORT]"),
        (
            ("kill", "--scope", "model", "--mode", "stop", "--region", "r", "--why", "x"),
            "--scope model needs a --target",
        ),
        (("resume", "--region", "r", "--why", "x"), "--everything"),
        (("resume", "--region", "r", "--why", "x", "--scope", "all", "--everything"), "or --every"),
    ],
)
def test_what_is_not_said_clearly_is_refused(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["control", *words]) == 2

    assert text in capsys.readouterr().err


def test_stops_are_added_replaced_and_taken_back(
    broker: RunningBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> dict[str, Any]:
        (region,) = json.loads(capsys.readouterr().out)["regions"]
        assert isinstance(region, dict)
        return region

    assert run(broker, "status") == 0
    assert said()["stops"] == []
    assert run(broker, *KILL, "--why", "one") == 0
    first = said()
    assert run(broker, *KILL[:-1], "fallback", "--why", "two", "--by", "kim") == 0
    second = said()
    model = ("--scope", "model", "--target", "animals@2")
    assert run(broker, "kill", *model, "--mode", "stop", "--why", "three") == 0
    third = said()
    assert run(broker, "resume", *model, "--why", "four") == 0
    fourth = said()
    assert run(broker, "resume", *model, "--why", "five") == 1
    fifth = said()
    assert run(broker, "resume", "--everything", "--why", "six") == 0
    sixth = said()

    sequences = [one["sequence"] for one in (first, second, third, fourth, sixth)]
    assert sequences == sorted(set(sequences))
    assert [(one["mode"], one["why"], one["by"]) for one in second["stops"]] == [
        ("fallback", "two", "kim")
    ]
    assert len(third["stops"]) == 2
    assert fourth["stops"] == fifth["stops"] == second["stops"]
    assert fifth["problem"] == "nothing of that kind is stopped"
    assert sixth["stops"] == []


async def be_online(broker: RunningBroker, *regions: str) -> None:
    """Leaves the retained states of a gateway that was online once, in each region."""
    bus = PahoBus(broker.address, client_id="before")
    await bus.start()
    await bus.wait_connected(10)
    for region in regions:
        gone = Offline(Tier.REGIONAL, "gw", region, 1)
        at = topics.gateway_state(region, "gw")
        bus.publish(Message(at, encode_control(gone), qos=1, retain=True))
    await bus.close()


def test_without_a_region_all_that_the_broker_knows_are_meant(
    broker: RunningBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*words: str, code: int = 0) -> dict[str, Any]:
        assert main(["control", *words, "--broker", str(broker.address), "--json"]) == code
        regions = json.loads(capsys.readouterr().out)["regions"]
        return {one["region"]: one["stops"] for one in regions}

    asyncio.run(be_online(broker, "plant", "yard"))
    capsys.readouterr()
    stopped = said(*KILL, "--why", "recall")
    only_in_one = ("--scope", "model", "--target", "animals")
    said("kill", *only_in_one, "--mode", "stop", "--region", "yard", "--why", "wrong")
    resumed = said("resume", *only_in_one, "--why", "right")
    seen = said("status")
    said("resume", "--everything", "--why", "false alarm")
    after = said("status")
    said("resume", "--everything", "--why", "again", code=1)

    assert {region: len(stops) for region, stops in stopped.items()} == {"plant": 1, "yard": 1}
    assert list(resumed) == ["yard"]
    assert {region: len(stops) for region, stops in seen.items()} == {"plant": 1, "yard": 1}
    assert after == {"plant": [], "yard": []}


async def be_known(broker: RunningBroker) -> None:
    """Leaves the retained state of a device that is online, and of one that has gone."""
    bus = PahoBus(broker.address, client_id="before")
    await bus.start()
    await bus.wait_connected(5)
    there = Birth(Tier.EDGE, "camera-1", "plant", 1, models=(ServedModel("animals", "2"),))
    for known in (there, Offline(Tier.EDGE, "camera-9", "plant", 1)):
        at = topics.agent_state("plant", known.site)
        bus.publish(Message(at, encode_control(known), qos=1, retain=True))
    await bus.close()


@pytest.mark.parametrize(
    ("words", "doubts"),
    [
        (("device", "--target", "camera-1"), []),
        (("device", "--target", "plant/camera-1"), []),
        (("device", "--target", "camera-9"), []),
        (("region", "--target", "plant"), []),
        (("model", "--target", "animals@2"), []),
        (("device", "--target", "camra-1"), ["'camra-1': did you mean 'camera-1'?"]),
        (("device", "--target", "x"), ["has ever been the device 'x': is the name right?"]),
        (("region", "--target", "plan"), ["in the region 'plan': did you mean 'plant'?"]),
        (("model", "--target", "animals@3"), ["serves the model 'animals@3': did you mean"]),
        (("all", "--region", "plan"), ["in the region 'plan': did you mean 'plant'?"]),
    ],
)
def test_a_name_that_nobody_has_is_told(
    broker: RunningBroker,
    words: tuple[str, ...],
    doubts: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asyncio.run(be_known(broker))
    at = ("--broker", str(broker.address), "--wait", "0.01", "--why", "x")

    main(["control", "kill", "--scope", *words, "--mode", "stop", *at])
    said = [line for line in capsys.readouterr().err.splitlines() if "nobody at this" in line]
    main(["control", "resume", "--everything", *at])
    after = capsys.readouterr().err

    assert len(said) == len(doubts)
    assert all(map(str.__contains__, said, doubts))
    assert "nobody at this" not in after


def test_an_override_of_a_name_that_nobody_has_is_told_to_programs(
    broker: RunningBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(be_known(broker))
    capsys.readouterr()
    pin = ("pin", "--answer", "cat", "--for", "1h", "--why", "x", "--wait", "0.01", "--json")

    at = ("--broker", str(broker.address))
    main(["override", *pin, *at, "--scope", "device", "--target", "camera-2"])
    (region,) = json.loads(capsys.readouterr().out)["regions"]

    assert region["doubts"] == [
        "nobody at this broker has ever been the device 'camera-2': did you mean 'camera-9'?"
    ]


def test_where_nobody_has_ever_been_online_a_region_has_to_be_named(
    broker: RunningBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["control", *KILL, "--why", "x", "--broker", str(broker.address)]) == 3

    assert "name the region whose stops are meant with --region" in capsys.readouterr().err


def test_without_a_broker_it_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    at = f"127.0.0.1:{free_port()}"

    assert main(["control", "status", "--region", "r", "--broker", at]) == 3

    assert f"tierwise: no connection to the broker at {at}" in capsys.readouterr().err


async def test_a_desk_knows_who_has_heard_and_who_has_not() -> None:
    broker = MemoryBroker()
    bus = MemoryBus(broker, client_id="desk")
    desk = Desk(bus, "r", "desk")
    await bus.start()
    await bus.wait_connected(10)

    def born(kind: str, region: str, site: str, **more: object) -> None:
        birth = {"kind": kind, "tier": "edge", "site": site, "region": region, "epoch": 1, **more}
        at = topics.agent_state(region, site)
        bus.publish(Message(at, json.dumps(birth).encode(), qos=1, retain=True))

    desk.publish(state(5, stop()))
    born("birth", "r", "a", controls={"r": 5})
    born("birth", "r", "b", controls={"r": 4})
    born("birth", "r", "of-an-earlier-version")
    born("birth", "below", "c", controls={"r": 5, "below": 9})
    born("birth", "elsewhere", "d", controls={"elsewhere": 1})
    born("birth", "r", "gone", controls={"r": 5})
    born("offline", "r", "gone")
    await desk.sync()
    await desk.wait_known(0.05)
    online = desk.online()
    bus.publish(Message(topics.control("r"), b"{}", qos=1, retain=True))
    await desk.sync()
    await bus.close()

    assert online == {"r/a": True, "r/b": False, "r/of-an-earlier-version": False, "below/c": True}
    assert not desk.is_readable


def test_whose_change_was_overtaken_is_told() -> None:
    mine = stop(why="mine")
    before = state(1, stop("model", "animals"))
    wanted = state(5, *before.stops, mine)

    def holds(now: ControlState | None) -> bool:
        return control_desk._holds(now, before, wanted)

    assert holds(wanted)
    assert holds(state(6, mine))
    assert not holds(None)
    assert not holds(state(4, mine))
    assert not holds(state(6, *before.stops))
    assert not control_desk._holds(state(7, mine), wanted, state(6))
