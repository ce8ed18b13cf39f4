"""The diagram of docs/rollouts.md is the table of transitions."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.core.rollout_states import STAGES, TRANSITIONS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "rollouts.md").read_text()
RUNNING = {stage.value for stage in STAGES}


def _expanded(name: str) -> set[str]:
    return RUNNING if name == "running" else {name}


def test_the_diagram_shows_every_transition_and_no_other() -> None:
    drawn = {
        (one, cause, other)
        for was, to, cause in re.findall(r"(\w+) --> (\w+): (\w+)", DOCUMENT)
        for one in _expanded(was)
        for other in _expanded(to)
    }

    assert drawn == {
        (was.value, cause.value, to.value)
        for (was, cause), targets in TRANSITIONS.items()
        for to in targets
    }
