"""Draws the phases of a rollout, from the table that rollouts follow.

python scripts/rollout_picture.py > docs/pictures/rollout-phases.svg

Each arrow has a title that says it in words (``canary --> done: finish``); ``running`` stands for
the stages, where all of them have the same way out.
"""

from __future__ import annotations

import math
import sys

from runtime.core.rollout_states import STAGES, TRANSITIONS, Phase

WIDTH, HEIGHT = 990, 460
BOX = (110, 34)
RUNNING = "running"
# The centre of each phase.
PLACES = {
    "draft": (80, 60),
    "approved": (80, 220),
    "shadow": (280, 110),
    "canary": (280, 220),
    "wave": (280, 330),
    RUNNING: (280, 220),
    "paused": (540, 60),
    "aborting": (540, 220),
    "aborted": (720, 220),
    "rolling_back": (720, 340),
    "rolled_back": (880, 340),
    "done": (540, 430),
    "superseded": (880, 60),
}
FRAME = (200, 60, 160, 320)
# Arrows that others would cover go by way of a point.
VIA = {
    ("wave", "wave"): [(352, 312), (352, 350)],
    ("draft", "aborting"): [(170, 30), (450, 30)],
    ("approved", "aborting"): [(140, 405), (450, 405)],
    ("canary", "done"): [(400, 300)],
    ("done", "superseded"): [(945, 430), (945, 110)],
}
# Two arrows between the same places lie beside each other, this far apart.
APART = 9
STYLE = (
    "rect{fill:#e0f2f1;stroke:#00796b}rect.all{fill:#fff;stroke:none}"
    "rect.group{fill:none;stroke-dasharray:5 4}text{font:13px sans-serif;fill:#102027;"
    "text-anchor:middle}text.cause{font-size:11px;fill:#37474f;paint-order:stroke;stroke:#fff;"
    "stroke-width:4px}polyline{fill:none;stroke:#546e7a;marker-end:url(#end)}"
)
HEAD = (
    '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto"><path d="M0,0L8,4L0,8z" fill="#546e7a"/></marker></defs>'
)
Point = tuple[float, float]
Arrow = tuple[str, str, str]


def arrows() -> list[Arrow]:
    """From, to and cause; what all stages have in common once."""
    found: dict[tuple[str, str], set[str]] = {}
    for (was, cause), targets in TRANSITIONS.items():
        for to in targets:
            found.setdefault((to.value, cause.value), set()).add(was.value)
    stages = {stage.value for stage in STAGES}
    shown = {
        (RUNNING if stages <= origins and one in stages else one, to, cause)
        for (to, cause), origins in found.items()
        for one in origins
    }
    resumed = {("paused", stage, "resume") for stage in stages}
    if resumed <= shown:
        shown = shown - resumed | {("paused", RUNNING, "resume")}
    return sorted(shown)


def edge_of(name: str, towards: Point) -> Point:
    """Where a line from the middle of a box to a point leaves the box."""
    x, y = PLACES[name]
    width, height = (FRAME[2], FRAME[3]) if name == RUNNING else BOX
    dx, dy = towards[0] - x, towards[1] - y
    if dx == dy == 0:
        return (x, y)
    scale = min(
        width / 2 / abs(dx) if dx else math.inf,
        height / 2 / abs(dy) if dy else math.inf,
    )
    return (x + dx * scale, y + dy * scale)


def path_of(was: str, to: str) -> list[Point]:
    """The points of an arrow."""
    between: list[Point] = [(float(x), float(y)) for x, y in VIA.get((was, to), [])]
    first = between[0] if between else PLACES[to]
    last = between[-1] if between else PLACES[was]
    points = [edge_of(was, first), *between, edge_of(to, last)]
    if any(one == to and other == was for one, other, _ in arrows()) and was != to:
        (ax, ay), (bx, by) = points[0], points[-1]
        length = math.hypot(bx - ax, by - ay)
        side = (-(by - ay) / length * APART, (bx - ax) / length * APART)
        points = [(x + side[0], y + side[1]) for x, y in points]
    return points


def drawn(arrow: Arrow) -> str:
    """One arrow with its cause."""
    was, to, cause = arrow
    points = path_of(was, to)
    middle = len(points) // 2
    (ax, ay), (bx, by) = points[middle - 1], points[middle]
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    return (
        f"<g><title>{was} --&gt; {to}: {cause}</title>"
        f'<polyline points="{line}"/>'
        f'<text class="cause" x="{(ax + bx) / 2:.0f}" y="{(ay + by) / 2 + 3:.0f}">'
        f"{cause}</text></g>"
    )


def picture() -> str:
    """The whole SVG."""
    boxes = [
        f'<rect x="{x - BOX[0] / 2:.0f}" y="{y - BOX[1] / 2:.0f}" width="{BOX[0]}" '
        f'height="{BOX[1]}" rx="6"/><text x="{x}" y="{y + 5}">{name}</text>'
        for name, (x, y) in PLACES.items()
        if name in set(Phase)
    ]
    x, y, width, height = FRAME
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>Phases of a rollout</title>",
            f"<style>{STYLE}</style>",
            HEAD,
            f'<rect class="all" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<rect class="group" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>',
            f'<text x="{x + width / 2:.0f}" y="{y + 18}">running</text>',
            *map(drawn, arrows()),
            *boxes,
            "</svg>",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(picture() + "\n")
