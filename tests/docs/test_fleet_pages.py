"""rollouts.md and experiments.md are walked through with a fleet; outputs are as they are shown.

Rollouts over a broker and a cloud tier with a real repository; experiments take a day, so their
clock is the test's. Devices are fakes that obey and report.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

import pytest
import structlog

from cloud_tier.operators.listener import operators_listening
from cloud_tier.rollouts.service import Rollouts
from fakes.catalogue import Cloud
from fakes.documents import ROOT, Block, blocks_of, lines_of
from fakes.programs import Asker, Hierarchy
from fakes.rollout_cloud import Devices, Kind, rolling_cloud
from fakes.rollout_fleet import REGIONS, STEP_S, Fleet, digest
from fakes.shell import form
from fakes.waiting import eventually, until
from tierwise.cli import main
from tierwise.operator_access import client_in
from tierwise.rollout_command import login

MODEL = "fashion-edge"
START = f"tierwise rollout start --model {MODEL}"
ID = re.compile(rf"{MODEL}-(?:ab|\d+)-[0-9a-f]{{6}}")
DAY_S = 86_400.0
# What the page's bad version was tried with, in seconds in place of minutes.
PLAN = """
shares = [0.1, 0.4, 1.0]
baseline_s = 4.0
fill_s = 60.0
[gate]
looks_s = [2.0, 4.0, 8.0, 16.0]
"""


def blocks(page: str, language: str) -> list[Block]:
    text = (ROOT / "docs" / page).read_text()
    return [one for one in blocks_of(text, page) if one.language == language]


def shown_after(block: Block) -> str:
    """What was printed, below the command."""
    return block.text.partition("\n")[2]


def id_in(text: str) -> str:
    found = ID.search(text)
    assert found, text
    return found[0]


def named(text: str) -> str:
    """Without the ends of ids, which are drawn."""
    return ID.sub("ID", text)


class Desk:
    """Where somebody types what a page says, in a folder with the state of the cloud."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def put(self, state: Path) -> Desk:
        """With that state folder where commands look for it."""
        (self._folder / "state").mkdir(exist_ok=True)
        (self._folder / "state" / "cloud").symlink_to(state)
        return self

    async def types(self, line: str, about: str = "", code: int = 0) -> str:
        """What a line prints; ``about`` is the id in place of the page's own."""
        _, *words = shlex.split(re.sub(r"\bID\b", about, ID.sub(about, line)))
        self._capsys.readouterr()
        assert await asyncio.to_thread(main, words) == code, self._capsys.readouterr()
        said = self._capsys.readouterr()
        return (said.out + said.err).replace(login(), "anna@desk")


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIERWISE_OPERATOR", raising=False)
    # What services log here is none of what commands print.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    return Desk(tmp_path, capsys)


@pytest.fixture
async def exits() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


@pytest.fixture
async def rolling(exits: AsyncExitStack, desk: Desk, tmp_path: Path) -> tuple[Desk, Devices]:
    """A cloud as rollouts.md sets it up, over thirty devices that have the second version."""
    hierarchy = Hierarchy(tmp_path, exits.enter_context(ExitStack()))
    asker = await exits.enter_async_context(Asker())
    kind = Kind(MODEL, versions=(2, 3, 4), num=30, regions=REGIONS)
    program, devices = await exits.enter_async_context(
        rolling_cloud(hierarchy, asker, tmp_path, kind)
    )
    (key,) = (tmp_path / "keys").iterdir()
    settings = blocks("rollouts.md", "toml")[0].text.replace("/srv/tierwise", str(tmp_path))
    settings = re.sub(r"rollout-[0-9a-f]{16}\.pem", key.name, settings)
    for section, told in tomllib.loads(settings).items():
        # It was started with what the page has.
        assert {f"{section}.{name}={value}" for name, value in told.items()} <= set(program.flags)
    async with client_in(program.state) as client:
        reported = partial(client.get, "/rollout-devices")
        await until(reported, lambda said: len(said["devices"]) == kind.num, 60)
    return desk.put(program.state), devices


@pytest.mark.timeout(120)
async def test_rollouts_are_started_steered_and_told_of_as_shown(
    rolling: tuple[Desk, Devices], tmp_path: Path
) -> None:
    desk, devices = rolling
    start, status = blocks("rollouts.md", "console")
    text = (ROOT / "docs" / "rollouts.md").read_text()
    lines = {
        words.split()[2]: words
        for words in re.findall(r"^\| `(tierwise rollout [^`]+)`", text, re.MULTILINE)
    }

    async def types(command: str, about: str, code: int = 0) -> str:
        return await desk.types(lines.pop(command), about, code)

    started = await desk.types(lines_of(start)[0])
    name = id_in(started)
    draft = id_in(await desk.types(f"{START} --version 3 --draft --by ben --why better"))

    assert named(started) == named(shown_after(start))
    assert name in await types("list", "")
    assert f"{name}: {MODEL}/3 is canary" in await types("status", name)
    assert "draft -> approved, by operator:anna@desk" in await types("history", name)
    assert "is paused (canary)" in await types("pause", name)
    assert "is canary" in await types("resume", name)
    assert "only where an operator was asked" in await types("promote", name, 1)
    assert "is roll" in await types("rollback", name)
    assert "is rolled back" in await types("watch", name, 1)
    assert "is shadow" in await types("approve", draft)
    assert "is aborted" in await types("abort", draft)
    assert lines == {}

    for device in devices.all:
        device.error_rate[digest(4, MODEL)] = 0.1
    # As much as devices are compared with.
    await eventually(lambda: devices.all[0].number >= 10, 60)
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    words = f"--version 4 --no-shadow --plan {plan} --why smaller"
    name = id_in(await desk.types(f"{START} {words}"))
    await desk.types("tierwise rollout watch ID", name, 1)

    told = await desk.types(lines_of(status)[0], name)

    assert form(named(told)) == form(named(shown_after(status)))


@pytest.fixture
async def trying(exits: AsyncExitStack, desk: Desk, tmp_path: Path) -> tuple[Desk, Fleet, Rollouts]:
    """A controller behind the operators' port, over a fleet that has the control's version."""
    cloud = Cloud(tmp_path / "repository")
    for version in (3, 4):
        cloud.publish(version, model=MODEL)
    fleet = await exits.enter_async_context(Fleet(tmp_path, cloud, 120, model=MODEL, serving=3))
    for device in fleet.devices:
        device.escalated_share[digest(4, MODEL)] = 0.05
        # So few devices are sure of a guardrail only where it is better, too.
        device.error_rate = {digest(3, MODEL): 0.15, digest(4, MODEL): 0.0}
    await fleet.pass_time()
    rollouts = Rollouts(fleet.service.controller, 2 * DAY_S)
    state = tmp_path / "operators"
    state.mkdir()
    await exits.enter_async_context(
        operators_listening(state, 0, fleet.clock, [rollouts.add_routes])
    )
    return desk.put(state), fleet, rollouts


@pytest.mark.timeout(60)
async def test_experiments_are_started_and_ended_as_shown(
    trying: tuple[Desk, Fleet, Rollouts],
) -> None:
    desk, fleet, rollouts = trying
    devices, keys = blocks("experiments.md", "console")
    start, status, promote, stop, listing = lines_of(devices)
    (start_by_key,) = lines_of(keys)

    name = id_in(await desk.types(start))
    for step_s in (0.0, *[STEP_S] * 3, *[DAY_S / 2] * 2, STEP_S, STEP_S):
        # So many devices are asked in a minute.
        await fleet.pass_time(step_s)
    await rollouts.experiments.look()
    told = await desk.types(status, name)
    promoted = await desk.types(promote, name)
    await fleet.settle()
    by_key = await desk.types(start_by_key)
    stopped = await desk.types(stop, id_in(by_key))
    listed = await desk.types(listing)

    assert "wins" in told
    assert "has ended, promoted: it wins" in promoted
    assert "tierwise rollout approve fashion-edge-4-" in promoted
    assert "requests are divided by user" in by_key
    assert "has ended, stopped: not now" in stopped
    assert all(one in listed for one in (name, id_in(by_key)))
