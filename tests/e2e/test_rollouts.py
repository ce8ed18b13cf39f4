"""A cloud tier as a program that rolls out, is killed in the middle, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from securesystemslib.signer import CryptoSigner

from cloud_tier.keys import new_key, write_key
from fakes.catalogue import Cloud
from fakes.programs import Asker, TierProgram
from fakes.rollout_fleet import FakeDevice, digest, up_item
from fakes.waiting import eventually, until
from runtime import topics
from runtime.adapters.clock import SystemClock
from runtime.adapters.paho_bus import PahoBus
from runtime.assignments import Do
from runtime.exchange.items import up_message
from tierwise.cli import main

pytestmark = pytest.mark.timeout(120)
REPORT_S = 0.5
PLAN = """
shares = [0.2, 1.0]
baseline_s = 4.0
fill_s = 60.0
[gate]
looks_s = [2.0, 4.0, 8.0]
"""


class Devices:
    """Sixteen devices that report twice a second, through what stands for their gateway."""

    def __init__(self, bus: PahoBus, signer: CryptoSigner) -> None:
        self.bus, self._clock = bus, SystemClock()
        self.all = [FakeDevice(f"d{one:02}", "plant", bus, signer) for one in range(16)]
        for device in self.all:
            device.listen("cloud")

    async def report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            now_s = self._clock.wall_s()
            for device in self.all if self.bus.is_connected else ():
                item = up_item(device.report(REPORT_S), now_s)
                self.bus.publish(up_message(item, topics.up("cloud", "gw"), now_s))


@pytest.fixture
async def cloud(
    hierarchy: Any, asker: Asker, tmp_path: Path
) -> AsyncIterator[tuple[TierProgram, Devices]]:
    hierarchy.broker()
    repository = Cloud(tmp_path / "repository")
    for version in (1, 2):
        repository.publish(version)
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
    devices = Devices(bus, key[1])
    await bus.start()
    await asker.ready(program)
    reporting = asyncio.create_task(devices.report())
    yield program, devices
    reporting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reporting
    await bus.close()


async def said(
    capsys: pytest.CaptureFixture[str], program: TierProgram, *words: str, code: int = 0
) -> Any:
    capsys.readouterr()
    argv = ["rollout", *words, "--operator", program.operator_file, "--json"]
    assert await asyncio.to_thread(main, argv) == code, capsys.readouterr()
    return json.loads(capsys.readouterr().out)


async def test_a_rollout_outlives_the_tier_that_drives_it(
    cloud: tuple[TierProgram, Devices],
    asker: Asker,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    program, devices = cloud
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    # A baseline to compare with.
    await eventually(lambda: devices.all[0].number >= 8, 60)
    words = ("--model", "m", "--no-shadow", "--plan", str(plan), "--why", "better", "--id", "r1")
    await said(capsys, program, "start", *words)
    await eventually(lambda: sum(bool(one.obeyed) for one in devices.all) == 4, 60)

    program.kill()
    program.restart()
    await asker.ready(program)
    status = await until(
        lambda: said(capsys, program, "status", "r1"),
        lambda status: status["is_ended"] or status["asked"],
        60,
    )

    # Judged by two looks of seconds, the second wave may ask; nobody has gone back.
    if not status["is_ended"]:
        status = await said(capsys, program, "promote", "r1", "--why", "seen")
    await eventually(lambda: all(one.serving == digest(2) for one in devices.all), 60)
    assert {len(one.obeyed) for one in devices.all} == {1}
    assert status["holder"].startswith("cloud-1-")
    assert status["blast_radius"]["num"] in (4, 16)
    assert program.stop() == 0


async def test_an_experiment_by_key_is_begun_and_withdrawn_over_the_broker(
    cloud: tuple[TierProgram, Devices], capsys: pytest.CaptureFixture[str]
) -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    program, devices = cloud
    await eventually(lambda: devices.all[0].number >= 2, 60)

    async def experiment(*words: str) -> Any:
        capsys.readouterr()
        argv = ["experiment", *words, "--operator", program.operator_file, "--json"]
        assert await asyncio.to_thread(main, argv) == 0, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    await experiment(
        "start", "--model", "m", "--control", "1:3", "--arm", "2", "--split-by", "user",
        "--observe", "2s", "--min-devices", "10", "--id", "e1", "--why", "better?",
    )  # fmt: skip
    await eventually(lambda: all(one.state == "split" for one in devices.all), 60)
    assert {one.share for one in devices.all} == {0.25}
    assert {one.serving for one in devices.all} == {digest(1)}

    await experiment("stop", "e1", "--why", "seen enough")

    await eventually(lambda: all(one.obeyed[-1].do is Do.WITHDRAW for one in devices.all), 60)
    assert (await experiment("status", "e1"))["ended"] == "stopped: seen enough"
    assert program.stop() == 0
