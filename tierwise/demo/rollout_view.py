"""What the rollout demo shows while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runtime.core.reasons import plain

if TYPE_CHECKING:
    from tierwise.demo.rollout import Load

MAX_LINES = 9
COLOURS = {"confirmed": "green", "rolled_back": "red", "pending": "dim", "cancelled": "dim"}


class RolloutView:
    """The fleet, the rollout that goes on, and what has happened so far."""

    def __init__(self, num_agents: int) -> None:
        self.num_agents = num_agents
        self.load: Load | None = None
        self._note, self._title = "", ""
        self._status: dict[str, Any] = {}
        self._lines: list[Text] = []

    def say(self, note: str) -> None:
        """What is being done now."""
        self._note = note

    def begin(self, title: str) -> None:
        """Another rollout begins."""
        self._title, self._note, self._status = title, "", {}
        self._lines.append(Text(title, style="bold"))

    def show(self, status: dict[str, Any]) -> None:
        """How it stands."""
        self._status = status

    def happened(self, event: dict[str, Any]) -> None:
        """The rollout went from a phase to another."""
        is_bad = event["now"] in ("aborting", "rolling_back", "rolled_back")
        text = f"  {plain(str(event['now'])).replace('_', ' ')}: {plain(str(event['why']))}"
        self._lines.append(Text(text, style="red" if is_bad else "", overflow="ellipsis"))

    def __rich__(self) -> RenderableType:
        """Drawn again with every refresh."""
        parts: list[RenderableType] = [
            Text(f"{self.num_agents} agents  --MQTT-->  gateway (mirror)  --MQTT-->  cloud")
        ]
        if self._status:
            parts += [_waves(self._status), _judged(self._status)]
        parts += self._lines[-MAX_LINES:]
        if self.load is not None:
            style = "red" if self.load.failed else "green"
            parts.append(
                Text(f"{self.load.requests} requests, {self.load.failed} failed", style=style)
            )
        parts.append(Text(self._note, style="dim"))
        return Panel(Group(*parts), title="tierwise demo --rollout", border_style="blue")


def _waves(status: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=9)
    table.add_column(width=18)
    table.add_column(ratio=1)
    for wave in status["waves"]:
        if not wave["devices"]:
            continue
        states: dict[str, int] = wave["states"]
        done = states.get("confirmed", 0)
        back = states.get("rolled_back", 0)
        shown = Text(", ").join(
            Text(f"{num} {name.replace('_', ' ')}", style=COLOURS.get(name, "yellow"))
            for name, num in states.items()
        )
        bar = Bar(size=wave["devices"], begin=0, end=done + back, color="red" if back else "green")
        table.add_row(Text(wave["stage"], style="bold"), bar, shown)
    return table


def _judged(status: dict[str, Any]) -> Text:
    found = status["judgement"]
    if found is None:
        return Text("no look at the figures yet", style="dim")
    lines = [f"look {found['look'] + 1}: {found['verdict']}"]
    lines += [f"  {plain(one['why'])}" for one in found["findings"]]
    return Text("\n".join(lines), style="red" if found["verdict"] == "breach" else "dim")
