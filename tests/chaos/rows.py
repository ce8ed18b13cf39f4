"""What is done to the hierarchy while requests are asked: one row of the table each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaos.fleet import BROKER_PORT, Fleet

Act = Callable[[Fleet], None]
# As most wide-area links are.
USUAL = ("delay 20", "jitter 5", "loss 1", "rate 20")


@dataclass(frozen=True)
class Row:
    """``acts`` happen at these shares of the run. ``hurts_agent``: callers see the agent gone."""

    name: str
    acts: Sequence[tuple[float, Act]] = ()
    link: Sequence[str] = USUAL
    hurts_agent: bool = False
    is_in_ci: bool = False
    disk_mb: int = 0
    own_clock: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether the cloud is to know of all decisions in the end: where clocks are not mad."""
        return not self.own_clock


def near(*commands: str) -> Act:
    """Changes the link between device and region."""
    return lambda fleet: fleet.near.set(*commands)


def far(*commands: str) -> Act:
    """Changes the link between region and cloud."""
    return lambda fleet: fleet.far.set(*commands)


def kill(name: str) -> Act:
    """Kills a program."""
    return lambda fleet: fleet.programs[name].kill()


def restart(name: str) -> Act:
    """Starts a program again."""
    return lambda fleet: fleet.programs[name].restart()


def freeze(name: str) -> Act:
    """Stops a program from running."""
    return lambda fleet: fleet.programs[name].freeze()


def thaw(name: str) -> Act:
    """Lets a program run on."""
    return lambda fleet: fleet.programs[name].thaw()


def rogue(manner: str) -> Act:
    """Adds a gateway that misbehaves, and that says it has nothing to do."""

    def start(fleet: Fleet) -> None:
        command = [
            sys.executable, "-m", "chaos.rogue", manner,
            "--host", "127.0.0.1", "--port", str(BROKER_PORT), "--region", "plant",
        ]  # fmt: skip
        fleet.add(f"rogue-{manner}", "reg", command)

    return start


def killed(name: str) -> tuple[tuple[float, Act], ...]:
    """Killed in the middle, and started again later."""
    return ((0.3, kill(name)), (0.6, restart(name)))


def frozen(name: str) -> tuple[tuple[float, Act], ...]:
    """Frozen for a while."""
    return ((0.3, freeze(name)), (0.6, thaw(name)))


def clock(days_ahead: int) -> Act:
    """Sets the wall clock of all tiers."""
    return lambda fleet: fleet.set_clock(days_ahead)


ROWS = (
    Row("usual link"),
    Row("cut, device to region", ((0.3, near("down")), (0.6, near("up"))), is_in_ci=True),
    Row("cut, region to cloud", ((0.3, far("down")), (0.6, far("up")))),
    Row("one way, device cannot send", ((0.3, near("ab down")), (0.6, near("up")))),
    Row("one way, device cannot hear", ((0.3, near("ba down")), (0.6, near("up")))),
    Row("slow", ((0.3, near("delay 300")), (0.6, near("delay 20")))),
    Row("loss 10 %", ((0.3, near("loss 10")), (0.6, near("loss 1")))),
    Row("narrow, 0.5 Mbit/s", ((0.3, near("rate 0.5")), (0.6, near("rate 20")))),
    Row("flapping", [(n / 20, near("down" if n % 2 else "up")) for n in range(4, 17)]),
    Row("gateway killed", killed("gateway"), is_in_ci=True),
    Row("cloud killed", killed("cloud")),
    Row("region's broker killed", killed("region_broker")),
    Row("cloud's broker killed", killed("cloud_broker")),
    Row("gateway frozen", frozen("gateway"), is_in_ci=True),
    Row("cloud frozen", frozen("cloud")),
    Row("region's broker frozen", frozen("region_broker")),
    Row("cloud's broker frozen", frozen("cloud_broker")),
    Row("a gateway that never answers", ((0.3, rogue("mute")),)),
    Row("a gateway that answers garbage", ((0.3, rogue("garbage")),)),
    Row("a gateway that answers twice", ((0.3, rogue("twice")),)),
    Row("a gateway that answers late", ((0.3, rogue("late")),)),
    Row("full disk", ((0.3, Fleet.fill_disk), (0.6, Fleet.empty_disk)), disk_mb=8),
    Row("clocks jump by a day", ((0.3, clock(1)), (0.6, clock(-1))), own_clock=True),
    Row("agent killed", ((0.3, kill("edge")), (0.32, restart("edge"))), hurts_agent=True),
    Row("agent frozen", ((0.3, freeze("edge")), (0.36, thaw("edge"))), hurts_agent=True),
)
