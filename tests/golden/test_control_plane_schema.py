"""The wire is frozen: a change of it has to show as a diff of the golden file."""

from __future__ import annotations

import difflib
from pathlib import Path

from golden.control_plane import describe, render

GOLDEN = Path(__file__).with_name("control_plane.schema.json")
COMMAND = "make golden"


def test_the_control_plane_is_what_the_golden_file_says() -> None:
    frozen = GOLDEN.read_text(encoding="utf-8")

    diff = "".join(
        difflib.unified_diff(
            frozen.splitlines(keepends=True), render().splitlines(keepends=True), "frozen", "now"
        )
    )

    assert not diff, (
        f"the wire has changed; if old and new programs still understand each other, "
        f"write it down with `{COMMAND}`:\n{diff}"
    )


def test_every_name_in_it_is_there_once() -> None:
    surface = describe()

    properties = list(surface["user_properties"].values())
    assert len(properties) == len(set(properties))
    assert len(set(surface["topics"].values())) == len(surface["topics"])
