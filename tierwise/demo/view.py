"""What the demo shows while it runs, and at its end."""

from __future__ import annotations

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tierwise.demo.tally import TIERS, Summary, Tally

COLOURS = {"edge": "green", "regional": "yellow", "cloud": "magenta"}
WHOLE = "--MQTT-->"
CUT = "--X  X-->"


def _hierarchy(num_agents: int, *, is_cut: bool) -> Text:
    """The tiers as a line, with the link that the demo cuts."""
    return Text.assemble(
        (f"{num_agents} agents", COLOURS["edge"]),
        f"  {WHOLE}  ",
        ("gateway", COLOURS["regional"]),
        "  ",
        (CUT if is_cut else WHOLE, "bold red" if is_cut else ""),
        "  ",
        ("cloud ensemble", COLOURS["cloud"]),
    )


class View:
    """The live picture: a progress bar, who answered, how right, how fast, what it cost."""

    def __init__(self, console: Console, num_agents: int) -> None:
        self.console, self.num_agents = console, num_agents
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self.note = "starting"
        self.is_cut = False
        self.uplink_bytes = 0
        self.tally: Tally | None = None

    def __rich__(self) -> RenderableType:
        """Drawn again with every refresh."""
        hierarchy = _hierarchy(self.num_agents, is_cut=self.is_cut)
        parts: list[RenderableType] = [hierarchy, self.progress]
        if self.tally is not None and self.tally.seen:
            parts.append(_answers(self.tally))
            parts.append(_quality(self.tally, self.uplink_bytes))
        parts.append(Text(self.note, style="red" if self.is_cut else "dim"))
        return Panel(Group(*parts), title="tierwise demo", border_style="blue")

    def summary(self, summary: Summary) -> None:
        """The final table."""
        self.console.print(summary_table(summary))


def _answers(tally: Tally) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(width=9)
    table.add_column(width=14, justify="right")
    table.add_column(ratio=1)
    total = len(tally.seen)
    for tier, count in tally.answered_by().items():
        share = count / total
        table.add_row(
            Text(tier, style=COLOURS[tier]),
            f"{count:5d}  {share:6.1%}",
            Bar(size=1.0, begin=0, end=share, color=COLOURS[tier]),
        )
    return table


def _quality(tally: Tally, uplink_bytes: int) -> Table:
    table = Table.grid(padding=(0, 2))
    rows = (
        (
            "accuracy",
            (
                f"hierarchy {tally.accuracy():.3f}   edge only "
                f"{tally.accuracy_of(tally.edge_only):.3f}   cloud only "
                f"{tally.accuracy_of(tally.cloud_only):.3f}"
            ),
        ),
        (
            "latency",
            (
                f"p50 {tally.latency_ms(50):.1f} ms   p99 {tally.latency_ms(99):.1f} ms   "
                f"within {tally.budget_ms:g} ms: {tally.deadline_met():.2%}"
            ),
        ),
        (
            "marked",
            (
                f"degraded {tally.count('degraded')}   abstained {tally.count('abstained')}   "
                f"failed {tally.count('failed')}"
            ),
        ),
        ("sent up", f"{uplink_bytes / 1e6:.2f} MB"),
    )
    for name, text in rows:
        table.add_row(Text(name, style="bold"), text)
    return table


def summary_table(summary: Summary) -> Table:
    """All figures of a run as a table."""
    table = Table(title="Summary", show_header=False, title_justify="left")
    total = max(1, summary["requests"])
    table.add_row("requests", str(summary["requests"]))
    for tier in TIERS:
        count = summary["answered_by"][tier]
        table.add_row(f"answered by {tier}", f"{count}  ({count / total:.1%})")
    table.add_row(
        "degraded / abstained / failed",
        f"{summary['degraded']} / {summary['abstained']} / {summary['failed']}",
    )
    accuracy = summary["accuracy"]
    table.add_row(
        "accuracy of the hierarchy",
        f"{accuracy['hierarchy']:.4f}  "
        f"(outside the outage {accuracy['hierarchy_outside_outage']:.4f})",
    )
    table.add_row(
        "edge only / cloud only", f"{accuracy['edge_only']:.4f} / {accuracy['cloud_only']:.4f}"
    )
    latency = summary["latency_ms"]
    table.add_row("latency p50 / p99", f"{latency['p50']:.1f} / {latency['p99']:.1f} ms")
    table.add_row(f"within {summary['budget_ms']:g} ms", f"{summary['deadline_met']:.2%}")
    share = summary["uplink_bytes"] / max(1, summary["uplink_bytes_if_all_cloud"])
    table.add_row(
        "bytes from agents to gateway",
        f"{summary['uplink_bytes']:,}  ({share:.1%} of sending everything)",
    )
    outage = summary["outage"]
    table.add_row(
        "while the cloud was cut off",
        f"{outage['requests']} requests, {outage['answered']} answered, "
        f"{outage['degraded']} of them marked degraded",
    )
    promise = summary["promise"]
    if promise is not None:
        shares = ", ".join(
            f"{tier} {one['measured']:.1%} ({one['low']:.1%} to {one['high']:.1%})"
            for tier, one in promise["answered_by"].items()
        )
        verdict = "as predicted" if promise["holds"] else "not as predicted"
        name = f"policy, {promise['guarantee']}: shares outside the outage {verdict}"
        table.add_row(name, f"measured (predicted): {shares}")
    return table
